"""The game of Wordle: words, rules, players, data and tokens."""
