"""What a trained student's PSNR and SSIM change by when it computes in bfloat16.

    python benchmarks/precision.py -opt options/small/test_x2.yml

On the test sets of an options file: in float32; as `train.precision: bf16` computes, under autocast with the first and
the last convolution, the mean shift and the scaling to 255 in float32; and, for the record, with everything in
bfloat16, the image too. Metrics are computed alike from the 8-bit images. On a CPU without instructions for bfloat16
this takes minutes.
"""

import argparse
from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor

from basicsr_clsd.config import check, load
from basicsr_clsd.engine.build import build_dataset, build_model
from basicsr_clsd.evaluation.metrics import Scores, measure, upscaled
from basicsr_clsd.models import SupervisedModel

FP32, MIXED, ALL = 'fp32', 'bf16, ends in fp32', 'everything in bf16'


def ways(model: SupervisedModel) -> dict[str, Callable[[Tensor], list[Tensor]]]:
    """Return the functions that upscale a batch in each precision."""
    rounded = deepcopy(model.net_g).bfloat16().eval()

    def mixed(lq: Tensor) -> list[Tensor]:
        with torch.autocast(model.device.type, torch.bfloat16):
            return model.upscale(lq)

    @torch.no_grad()
    def everything(lq: Tensor) -> list[Tensor]:
        return [rounded(lq.to(model.device, torch.bfloat16)).float().cpu()]

    return {FP32: model.upscale, MIXED: mixed, ALL: everything}


def main() -> None:
    """Measure every set in each precision and print one table."""
    parser = argparse.ArgumentParser(description='PSNR and SSIM of a student in bfloat16 against float32.')
    parser.add_argument('-opt', required=True, metavar='YAML', help='options file of a test')
    parser.add_argument('--force_yml', nargs='+', default=[], metavar='KEY:KEY=VALUE', help='override options')
    args = parser.parse_args()
    options = load(args.opt, args.force_yml)
    check(options, testing=True)
    model = build_model(options)
    model.net_g.to(memory_format=torch.channels_last)  # in which a CPU without instructions for bfloat16 is less slow
    print(f'torch {torch.__version__}, {model.device.type}, {options.path.pretrain_network_g}\n')
    print('| set | precision | ' + ' | '.join(f'{name} | change' for name in options.val.metrics) + ' |')
    print('| --- | --- | ' + ' | '.join(['---: | ---:'] * len(options.val.metrics)) + ' |')
    for _, section in options.sets('test'):
        dataset = build_dataset(options, section, 'test')
        full: dict[str, float] = {}
        for way, upscale in ways(model).items():
            scores = Scores()
            for sample in upscaled(dataset, upscale, range(len(dataset))):
                scores.images[sample.name] = measure(sample.outputs[0], sample.gt, options.val.metrics)
            means = scores.mean()
            full = full or means
            cells = (f'{value:.4f} | {value - full[name]:+.4f}' for name, value in means.items())
            print(f'| {section.name} | {way} | ' + ' | '.join(cells) + ' |', flush=True)


if __name__ == '__main__':
    main()
