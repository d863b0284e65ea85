"""What an ablation ends with: tables, figures and a report."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from basicsr_clsd.ablation.plan import AblationSet, Job
from basicsr_clsd.reporting.comparison import compare
from basicsr_clsd.reporting.figures import head_blocks, save_figure
from basicsr_clsd.reporting.groups import group
from basicsr_clsd.reporting.html import read_sources, report_page
from basicsr_clsd.reporting.tables import print_tables, write_tables
from basicsr_clsd.runtime.files import write_text

EMBEDDED = 32 * 2**20


def summarize(jobs: Sequence[Job], chosen: AblationSet, folder: Path, console: Console) -> None:
    """Print the tables; write them, ``report.html`` and, if it was varied, ``head_blocks.png`` into a folder.

    Raises:
        UserError: The results do not go together.
    """
    sources = read_sources([str(job.results) for job in jobs])
    tables = compare(sources.tested, chosen.baseline, paper=True)
    page = report_page(sources, chosen.name, folder, EMBEDDED, paper=True, baseline=chosen.baseline)
    print_tables(tables, console)
    write_tables(tables, folder)
    write_text(page, folder / 'report.html')
    figure = head_blocks(group(sources.tested))
    if figure is not None:
        save_figure(figure, folder / 'head_blocks.png')
    console.print(f'Tables and report: {folder}', markup=False)
