"""Draws a terminal's screen as `terminal.svg`, from its text and colours on standard input.

tmux new-session -d -s demo -x 92 -y 60 'lorasweep run; sleep 60'
tmux capture-pane -t demo -e -p -S -200 | python images/terminal.py    # when the sweep has ended
"""

import re
import sys
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

# The reader's own monospace font: rich's template would load one from the network.
TEMPLATE = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL).replace(
    "Fira Code, monospace", "Menlo, Consolas, DejaVu Sans Mono, monospace"
)

screen = Text.from_ansi(sys.stdin.read().rstrip())
lines = screen.split("\n")
# The plan and the progress scroll by before the result.
start = next(number for number, line in enumerate(lines) if " finished after " in line.plain)
console = Console(record=True, width=92, file=sys.stderr)
for line in lines[start:]:
    console.print(line)
svg = console.export_svg(title="lorasweep run", code_format=TEMPLATE)
(Path(__file__).parent / "terminal.svg").write_text(svg, encoding="utf-8")
