"""Build ``answers.txt`` and ``guesses.txt`` from the SCOWL word lists.

SCOWL grades English words by how common they are (10: the most common, 95: the rarest).
Guesses are the five-letter words up to size 80; answers are the ones up to size 40 that are not
forms in -s or -ed of a shorter word.  Offensive words are in neither list.

    apt-get install scowl
    python -m agilerl.wordle.words.build
"""

from __future__ import annotations

import argparse
import codecs
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from agilerl.errors import DatasetError

WORDS_DIRECTORY = Path(__file__).parent
SCOWL_DIRECTORY = Path("/usr/share/dict/scowl")
COPYRIGHT_FILE = Path("/usr/share/doc/scowl/copyright")
ANSWER_SIZES = (10, 20, 35, 40)
GUESS_SIZES = (*ANSWER_SIZES, 50, 55, 60, 70, 80)
STEM_SIZES = (*ANSWER_SIZES, 50)


def read_scowl(directory: Path, sizes: Iterable[int], letters: str) -> set[str]:
    """Return the lower-case words of ``letters`` letters (a regex count such as ``"5"``)."""
    word = re.compile(rf"[a-z]{{{letters}}}")
    found: set[str] = set()
    for size in sizes:
        paths = [directory / f"{dialect}-words.{size}" for dialect in ("english", "american")]
        present = [path for path in paths if path.is_file()]
        if not present:
            raise DatasetError(
                f"{directory}: expected a file english-words.{size}, found none. "
                "Install SCOWL ('apt-get install scowl') or give its folder with --scowl."
            )
        for path in present:
            lines = path.read_text(encoding="latin-1").split()
            found.update(line for line in lines if word.fullmatch(line))
    return found


def is_inflected(word: str, stems: set[str]) -> bool:
    """Tell whether ``word`` is a shorter word with an ending in -s or -ed."""
    endings = {"s": "", "es": "", "ies": "y", "ed": "", "d": "", "ied": "y"}
    if not word.endswith(("s", "ed")) or word.endswith("ss"):
        return False
    return any(
        word.endswith(ending) and word.removesuffix(ending) + instead in stems
        for ending, instead in endings.items()
    )


def read_offensive(path: Path) -> set[str]:
    """Return the words to leave out (the file is in ROT13, so that nobody meets them by chance)."""
    lines = path.read_text(encoding="ascii").splitlines()
    return {codecs.decode(line, "rot13") for line in lines if line and not line.startswith("#")}


def build(scowl: Path, offensive: set[str]) -> tuple[list[str], list[str]]:
    """Return the sorted (answers, guesses); every answer is a guess as well."""
    stems = read_scowl(scowl, STEM_SIZES, "2,4")
    guesses = read_scowl(scowl, GUESS_SIZES, "5") - offensive
    common = read_scowl(scowl, ANSWER_SIZES, "5") - offensive
    return sorted(word for word in common if not is_inflected(word, stems)), sorted(guesses)


def main() -> None:
    """Write the two lists and SCOWL's copyright notice beside this script."""
    parser = argparse.ArgumentParser(description="Build agilerl's Wordle word lists from SCOWL.")
    parser.add_argument("--scowl", type=Path, default=SCOWL_DIRECTORY, help="folder of SCOWL files")
    parser.add_argument("--copyright", type=Path, default=COPYRIGHT_FILE, help="SCOWL's notice")
    parser.add_argument("--out", type=Path, default=WORDS_DIRECTORY, help="folder to write to")
    arguments = parser.parse_args()
    answers, guesses = build(arguments.scowl, read_offensive(WORDS_DIRECTORY / "offensive.rot13"))
    for name, words in (("answers.txt", answers), ("guesses.txt", guesses)):
        (arguments.out / name).write_text("\n".join(words) + "\n", encoding="ascii")
        print(f"{arguments.out / name}: {len(words)} words")
    shutil.copyfile(arguments.copyright, arguments.out / "COPYRIGHT.scowl")


if __name__ == "__main__":
    main()
