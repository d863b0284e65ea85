"""D: a compiled step is the plain one, in one graph, compiled once."""

import time
from collections.abc import Iterator

from torch._dynamo.utils import counters
from training_steps import write_teachers

from gpu_parts.numerics import accumulated, build, worst
from gpu_parts.rows import Check, Row, at_most, exactly, skipped, synchronize, told

SETTING = 'bf16+channels_last'


def rows(check: Check) -> Iterator[Row]:
    """CLSD's step."""
    if not check.on_gpu and check.quick:
        yield skipped('CLSD, compiled', 'compiling for a CPU takes minutes: leave out --quick')
        return
    write_teachers(check.settings(4))
    terms, _ = accumulated(build('CLSD', SETTING, check.device, check))
    counters.clear()
    model = build('CLSD', f'{SETTING}+compile', check.device, check)
    start = time.perf_counter()
    found, _ = accumulated(model)
    synchronize(check)
    yield told('CLSD: seconds to compile', time.perf_counter() - start)
    yield at_most('CLSD, compiled: loss terms against the plain step', worst(found, terms), 5e-3)
    yield exactly('CLSD, compiled: graphs', counters['stats']['unique_graphs'], 1)
    model.step()
    for iteration in range(2, 21):
        model.update_learning_rate(iteration)
        model.optimize_parameters(iteration)
    yield exactly('CLSD, compiled: graphs after 20 steps', counters['stats']['unique_graphs'], 1)
    yield exactly('CLSD, compiled: breaks of the graph', sum(counters['graph_break'].values()), 0)
