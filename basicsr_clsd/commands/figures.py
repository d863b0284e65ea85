"""Draw figures, each as PNG and SVG: ``python scripts/figures.py curves experiments/*``.

Exit code 0: done. 1: the disk failed. 2: a mistake in what was given.
"""

import argparse
from pathlib import Path

from basicsr_clsd import cli
from basicsr_clsd.errors import UserError, suggest

# What the subcommands do is imported when one runs, so that --help and a mistyped argument need not wait.


def save(figure, arguments: argparse.Namespace, console: cli.Console) -> None:  # noqa: ANN001
    """Write a figure and say where it is."""
    from basicsr_clsd.reporting.figures import save_figure  # noqa: PLC0415
    from basicsr_clsd.runtime.files import check_writable  # noqa: PLC0415

    check_writable(arguments.output.absolute().parent)
    for path in save_figure(figure, arguments.output, arguments.dpi):
        console.print(str(path), markup=False, highlight=False)


def read_groups(arguments: argparse.Namespace) -> list:
    """Methods of the results that the command line names; ``--set`` must be one of their sets."""
    from basicsr_clsd.evaluation.results import read_all  # noqa: PLC0415
    from basicsr_clsd.reporting.groups import group  # noqa: PLC0415

    groups = group(read_all(arguments.results))
    known = {name for each in groups for tested in each.tested for name in tested.sets}
    if arguments.set is not None and arguments.set not in known:
        raise UserError(f'--set: no {arguments.set!r} in these results{suggest(arguments.set, known)}')
    return groups


def of_scale(found: list, scale: int | None) -> list:
    """Those of what was found that are of the chosen scale; without a choice, all must be of one."""
    scales = sorted({each.scale for each in found})
    if scale not in (scales if scale is not None or len(scales) > 1 else [None]):
        raise UserError(f'--scale: choose one of {", ".join(map(str, scales))}')
    return [each for each in found if scale in (None, each.scale)]


def curves(arguments: argparse.Namespace, console: cli.Console) -> None:
    """Draw a metric of the validations, its difference to a baseline, or the loss terms, of several runs."""
    from basicsr_clsd.reporting.runs import read_training  # noqa: PLC0415
    from basicsr_clsd.reporting.training_curves import difference_curves, loss_curves, validation_curves  # noqa: PLC0415

    runs = [read_training(folder) for folder in arguments.experiments]
    if arguments.losses:
        figure = loss_curves(runs)
    elif arguments.baseline is not None:
        figure = difference_curves(runs, arguments.baseline, arguments.metric)
    else:
        figure = validation_curves(runs, arguments.metric)
    save(figure, arguments, console)


def head_blocks(arguments: argparse.Namespace, console: cli.Console) -> None:
    """Draw PSNR against the number of the heads' residual blocks."""
    from basicsr_clsd.reporting.figures import head_blocks  # noqa: PLC0415

    figure = head_blocks(read_groups(arguments), arguments.set)
    if figure is None:
        raise UserError(
            'these results: no two numbers of blocks per head, with all else equal, in trainings that are known'
        )
    save(figure, arguments, console)


def cost(arguments: argparse.Namespace, console: cli.Console) -> None:
    """Draw PSNR against parameters, multiply-adds or latency."""
    from basicsr_clsd.reporting.figures import cost  # noqa: PLC0415

    groups = of_scale(read_groups(arguments), arguments.scale)
    figure = cost(groups, arguments.against, arguments.set or next(iter(groups[0].tested[0].sets)))
    if figure is None:
        raise UserError(f'these results: {arguments.against} of none of the networks is known')
    save(figure, arguments, console)


def crops(arguments: argparse.Namespace, console: cli.Console) -> None:
    """Draw crops of one image by every method."""
    from basicsr_clsd.evaluation.crops import Box, most_different  # noqa: PLC0415
    from basicsr_clsd.evaluation.results import read_all  # noqa: PLC0415
    from basicsr_clsd.reporting.crops import crop_figure  # noqa: PLC0415
    from basicsr_clsd.reporting.groups import group, named_tests  # noqa: PLC0415
    from basicsr_clsd.reporting.viewer import HR, LR, scenes  # noqa: PLC0415

    found = scenes(named_tests(group(read_all(arguments.results))))
    if not found:
        raise UserError(f'{arguments.results[0]}: no images; test with --force_yml val:save_img=true')
    known = [f'{scene.dataset}/{scene.name}' for scene in found]
    if arguments.image not in known:
        raise UserError(f'--image: no {arguments.image!r} in these results{suggest(arguments.image, known)}')
    named = [scene for scene, name in zip(found, known, strict=True) if name == arguments.image]
    (scene,) = of_scale(named, arguments.scale)
    if HR not in scene.names():
        raise UserError(f'{scene.dataset}: the HR images are not where they were tested')
    outputs = {name: scene.read(name) for name in scene.names() if name not in (HR, LR)}
    if arguments.box:
        box = Box(*arguments.box)
    else:
        names = list(outputs)
        trained = names[1:]  # after bicubic
        between = arguments.between or [trained[0] if len(trained) > 1 else names[0], trained[-1]]
        for name in between:
            if name not in outputs:
                raise UserError(f'--between: no method {name!r} in these results{suggest(name, names)}')
        box = most_different(outputs[between[0]], outputs[between[1]], arguments.size, arguments.size)
    console.print(f'--box {" ".join(map(str, box))}', highlight=False)
    save(crop_figure(arguments.image, scene.read(HR), outputs, box), arguments, console)


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    subparsers = parser.add_subparsers(title='what to draw', metavar='WHAT', required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument('-o', '--output', type=Path, required=True, metavar='FILE', help='FILE.png and FILE.svg')
    shared.add_argument('--dpi', type=cli.positive, default=160, help='of the PNG (default: %(default)s)')
    tests = argparse.ArgumentParser(add_help=False)
    tests.add_argument('results', nargs='+', metavar='RESULTS', help='results/NAME, or METHOD=results/NAME')
    scale = argparse.ArgumentParser(add_help=False)
    scale.add_argument('--scale', type=cli.positive, help='where the results are of several')

    part = subparsers.add_parser('curves', parents=[shared], help='training curves of several runs')
    part.add_argument('experiments', nargs='+', type=Path, metavar='EXPERIMENT', help='experiments/NAME')
    part.add_argument('--metric', default='psnr', help='of the validations (default: %(default)s)')
    either = part.add_mutually_exclusive_group()
    either.add_argument('--baseline', metavar='METHOD', help='its difference to this method instead, mean over seeds')
    either.add_argument('--losses', action='store_true', help='each loss term instead')
    part.set_defaults(draw=curves)

    part = subparsers.add_parser('head-blocks', parents=[shared, tests], help="PSNR against the heads' blocks (Fig. 3)")
    part.add_argument('--set', help='one set (default: all)')
    part.set_defaults(draw=head_blocks)

    part = subparsers.add_parser('cost', parents=[shared, tests, scale], help='PSNR against what a network costs')
    part.add_argument('--against', choices=['parameters', 'macs_1280x720', 'latency_s'], default='parameters')
    part.add_argument('--set', help='name of the set (default: the first)')
    part.set_defaults(draw=cost)

    part = subparsers.add_parser(
        'crops', parents=[shared, tests, scale], help='crops of an image by all methods (Fig. 4)'
    )
    part.add_argument('--image', required=True, metavar='SET/IMAGE', help='as in Urban100/img_062')
    box = part.add_mutually_exclusive_group()
    box.add_argument('--box', type=int, nargs=4, metavar=('LEFT', 'TOP', 'WIDTH', 'HEIGHT'), help='in HR pixels')
    box.add_argument('--between', nargs=2, metavar='METHOD', help='where these differ most (default: first and last)')
    part.add_argument('--size', type=cli.positive, default=64, help='side of a box that is not given (default: 64)')
    part.set_defaults(draw=crops)
    return parser.parse_args()


def main() -> None:
    """Parse the command line, and draw."""
    parsed = parse()
    cli.run(lambda console: parsed.draw(parsed, console))
