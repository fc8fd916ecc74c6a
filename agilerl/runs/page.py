"""The frame of ``report.html``: its text and look, and the script that draws the figures."""

from __future__ import annotations


def plotly_script() -> str:
    """Return plotly's script, to be part of the page."""
    from plotly.offline import get_plotlyjs

    text: str = get_plotlyjs()
    return text.replace("</script", "<\\/script")


#: ``{{name}}`` is filled in by ``report.page_of``.
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{title}}</title>
<link rel="icon" href="data:,">
<style>
:root { color-scheme: light dark; --ink: #1d2430; --soft: #5b6677; --card: #ffffff; --page: #f3f5f8;
  --edge: #dde2ea; --warn: #fff6e6; --warn-edge: #e0a43a; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ef; --soft: #9aa5b5; --card: #1a1f28; --page: #11151b; --edge: #2c3440;
    --warn: #2b2417; --warn-edge: #b8862f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 20px 16px 60px; }
h1 { font-size: 1.5rem; margin: 8px 0 16px; }
h2 { font-size: 1.1rem; margin: 0 0 4px; }
section { background: var(--card); border: 1px solid var(--edge); border-radius: 10px;
  padding: 16px; margin: 16px 0; overflow: hidden; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; }
.fact { background: var(--card); border: 1px solid var(--edge); border-radius: 10px;
  padding: 10px 14px; }
.fact span, .fact small { display: block; color: var(--soft); font-size: .82rem; }
.fact b { font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.warnings { background: var(--warn); border-left: 4px solid var(--warn-edge); }
.warnings ul { margin: 4px 0; padding-left: 20px; }
.note { color: var(--soft); margin: 4px 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 6px 8px; border-bottom: 1px solid var(--edge); }
th:first-child, td:first-child { text-align: left; }
th { color: var(--soft); font-weight: 600; font-size: .85rem; }
pre { overflow-x: auto; background: var(--page); border: 1px solid var(--edge);
  border-radius: 8px; padding: 10px; font-size: .85rem; margin: 6px 0; }
details summary { cursor: pointer; color: var(--soft); }
</style>
<script>{{script}}</script>
</head>
<body>
<main>
<h1>{{title}}</h1>
<div class="facts">{{summary}}</div>
<section class="warnings"><h2>What to look out for</h2>{{warnings}}</section>
<section><h2>Fitness</h2>
<p class="note">Every evaluation of every agent; the best of each generation with the noise of its
evaluation. Hover for an agent's mutation and network.</p>{{figure_fitness}}</section>
<section><h2>Family tree</h2>
<p class="note">A line leads from each agent to the one that it continues or was cloned from; the
elite's ancestors are in orange.</p>{{figure_tree}}</section>
<section><h2>Hyper-parameters</h2>
<p class="note">What each agent learnt with; the elite's schedule is the thick line.</p>
{{figure_hyperparameters}}</section>
<section><h2>Networks</h2>
<p class="note">Hidden units (and channels) of the policy network.</p>
{{figure_architecture}}</section>
<section><h2>What mutations did</h2>
<p class="note">Change of fitness from the parent's last evaluation to the child's first. Agents
learn in between: compare with those that were kept as they were.</p>{{mutations}}</section>
<section><h2>Repeat it</h2><pre>{{command}}</pre>
<details><summary>All settings</summary><pre>{{settings}}</pre></details></section>
</main>
<script>
(function () {
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  function look(plot) {
    var found = { "font.color": getComputedStyle(document.body).color };
    if (plot.id === "plot-fitness") {
      found["updatemenus[0].bgcolor"] = dark.matches ? "#2c3440" : "#eef1f5";
      found["updatemenus[0].bordercolor"] = "rgba(128,128,128,0.4)";
      found["updatemenus[0].active"] = -1;
    }
    return found;
  }
  function draw(plot) {
    var figure = JSON.parse(document.getElementById(plot.id.replace("plot", "values")).textContent);
    var config = { displayModeBar: false, responsive: true };
    figure.layout.font.color = look(plot)["font.color"];
    Plotly.newPlot(plot, figure.data, figure.layout, config).then(function () {
      Plotly.relayout(plot, look(plot));
    });
  }
  var watch = new IntersectionObserver(function (entries) {
    entries.forEach(function (entry) {
      if (entry.isIntersecting) {
        watch.unobserve(entry.target);
        draw(entry.target);
      }
    });
  }, { rootMargin: "200px" });
  var plots = document.querySelectorAll(".plotly-graph-div");
  plots.forEach(function (plot) { watch.observe(plot); });
  window.addEventListener("beforeprint", function () {
    plots.forEach(function (plot) { if (!plot.data) { draw(plot); } });
  });
  dark.addEventListener("change", function () {
    plots.forEach(function (plot) { if (plot.data) { Plotly.relayout(plot, look(plot)); } });
  });
})();
</script>
</body>
</html>
"""
