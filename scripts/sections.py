"""Benches that write a page of sections: each section is a module that gives Markdown.

A section is `scripts/<folder>/<name>.py` with `section() -> str` or `section(seeds: int) -> str`.
Sections that are not run stay on the page as they are.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import platform
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

_PAGES = Path(__file__).resolve().parents[1] / "docs" / "benchmarks"


def measured(folder: str, name: str, seeds: int) -> str:
    """The Markdown of one section, with what it cost and the command that gives it again."""
    section = importlib.import_module(f"{folder}.{name}").section
    # a section without seeds measures one model, or has its own
    options = {"seeds": seeds} if "seeds" in inspect.signature(section).parameters else {}
    # with the processes that it starts
    load, start = os.getloadavg()[0], sum(os.times()[:4])
    text = section(**options).strip()
    spent = sum(os.times()[:4]) - start
    command = f"--only {name}" + (f" --seeds {seeds}" if options else "")
    return (
        f"{text}\n\n<sub>`{command}`: {spent:.0f} CPU s; {os.cpu_count()} cores "
        f"({platform.machine()}), load average at the start {load:.1f}.</sub>"
    )


def written(page: Path, title: str, sections: Sequence[str], name: str, text: str) -> str:
    """The page with one section in the place of its old one."""
    old = page.read_text() if page.exists() else ""
    kept = dict(re.findall(r"<!-- (\w+) -->\n(.*?)\n<!-- end -->", old, flags=re.DOTALL))
    kept[name] = text
    parts = [f"<!-- {key} -->\n{kept[key]}\n<!-- end -->" for key in sections if key in kept]
    return "\n".join([title, *parts]) + "\n"


def run(folder: str, title: str, sections: Sequence[str], help_text: str, seeds: int) -> None:
    """The command line of a bench.

    Args:
        folder: where the sections lie, and the name of the page.
        title: head of the page.
        sections: their names, in the order of the page.
        help_text: what ``--help`` says.
        seeds: over how many seeds medians are taken unless ``--seeds`` says otherwise.
    """
    page = _PAGES / f"{folder}.md"
    parser = argparse.ArgumentParser(
        description=help_text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=sections, default=sections)
    parser.add_argument("--seeds", type=int, default=seeds, help="medians are over so many seeds")
    parser.add_argument("--write", action="store_true", help=f"write {page.name}")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in given.only:
        text = measured(folder, name, given.seeds)
        print(f"{text}\n", flush=True)
        if given.write:
            page.write_text(written(page, title, sections, name, text))
