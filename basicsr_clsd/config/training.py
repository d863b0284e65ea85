"""The section ``train`` of an options file."""

from functools import cached_property
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, PositiveInt

from basicsr_clsd.config.components import (
    Component,
    ContrastiveTerm,
    DistillationTerm,
    FeatureRatioTerm,
    HintTerm,
    Loss,
    ScheduledLoss,
    SelfDistillLoss,
)
from basicsr_clsd.config.section import Fraction, Section

CompileMode = Literal['default', 'reduce-overhead', 'max-autotune', 'max-autotune-no-cudagraphs']


def _compile(value: object) -> object:
    if not isinstance(value, bool | None) and value not in get_args(CompileMode):
        raise ValueError(f'must be true, false or one of {", ".join(get_args(CompileMode))}')
    return value


Compile = Annotated[bool | CompileMode, BeforeValidator(_compile)]


class Teacher(Section):
    """How the teacher computes; it is in evaluation mode, without gradient."""

    precision: Literal['fp32', 'bf16', 'fp16'] | None = Field(
        default=None, description='of the teacher; default `train.precision`'
    )
    channels_last: bool | None = Field(
        default=None, description='memory format of the teacher; default `train.channels_last`'
    )
    compile: Compile | None = Field(default=None, description='compile the teacher; default `train.compile`')


class Train(Section):
    """What is optimised, and how."""

    renamed = {'accumulate': 'accum_iter', 'skip_limit': 'max_skipped_steps'}
    total_iter: PositiveInt = Field(description='number of optimizer steps')
    optim_g: Component = Field(description='optimizer: a class of `torch.optim` and its arguments')
    scheduler: Component = Field(description='`MultiStepLR`, `MultiStepRestartLR` or `CosineAnnealingRestartLR`')
    warmup_iter: int = Field(default=-1, description='linear warm-up of the learning rate; -1: none')
    ema_decay: Fraction = Field(default=0, description='exponential moving average of the weights; 0: none')
    ema_warmup: bool = Field(
        default=False,
        description='after n steps the average decays by (1 + n) / (10 + n) where that is less than `ema_decay`, so '
        'that it soon forgets the initial weights (new key)',
    )
    pixel_opt: Loss | None = Field(default=None, description='L_SR: student against HR')
    perceptual_opt: ScheduledLoss | None = Field(
        default=None, description='perceptual (and style) loss of the student; it has weights of its own'
    )
    aux_opt: Loss | None = Field(default=None, description='L_ASR: heads against HR, mean over heads (new key)')
    self_distill_opt: SelfDistillLoss | None = Field(
        default=None, description='L_SD: heads against the student, mean over heads (new key)'
    )
    contrastive_opt: ContrastiveTerm | None = Field(
        default=None, description='L_CS: contrastive ratio, sum over heads (new key)'
    )
    hint_opt: HintTerm | None = Field(
        default=None, description="L_H: the heads' features against the student's, mean over heads (new key)"
    )
    contrast_opt: FeatureRatioTerm | None = Field(
        default=None, description="L_C of `CSDModel`: the student's features near the teacher's (new key)"
    )
    teacher_opt: Loss | None = Field(
        default=None, description='L_T of `CSDModel`: the wide network, its teacher, against HR (new key)'
    )
    imitation_opt: Loss | None = Field(
        default=None, description="L_I of `PrivilegedModel`: its encoder's image against LR (new key)"
    )
    distill_opt: list[DistillationTerm] | None = Field(
        default=None, description='terms between the student and the teacher (new key)'
    )
    teacher: Teacher = Field(default_factory=Teacher, description='how the teacher computes (new key)')
    pixel_range: float | None = Field(
        default=None,
        gt=0,
        description='images in [0, 1] are multiplied by this in every loss; default 255; for BasicSR models 1 (new)',
    )
    accum_iter: PositiveInt = Field(
        default=1, description='micro-batches of an iteration, whose gradients are averaged (new key)'
    )
    max_grad_norm: float | None = Field(
        default=None,
        gt=0,
        description='a gradient of a larger norm, over all parameters, is scaled down to it; default: none (new key)',
    )
    head_gradient: float = Field(
        default=1,
        ge=0,
        description='factor on the gradient that heads send into the network that they start from (new key)',
    )
    precision: Literal['fp32', 'bf16', 'fp16', 'auto'] = Field(
        default='fp32',
        description='of the networks; ends of the network and losses stay in fp32. `auto`: bf16 and `channels_last` on '
        'a GPU of compute capability 8 or more and on a CPU with AMX or AVX512-BF16, else fp32 (new key)',
    )
    channels_last: bool = Field(default=False, description='memory format of networks and images (new key)')
    compile: Compile = Field(
        default=False, description="compile the network with `torch.compile`; a text is torch's `mode` (new key)"
    )
    tf32: bool = Field(
        default=True,
        description='TensorFloat-32 in the convolutions of a training on an NVIDIA GPU, as in BasicSR; validation and '
        'products of matrices stay in fp32 (new key)',
    )
    deterministic: bool = Field(
        default=True, description='cuDNN gives the same bits each time, as an exact resume needs (new key)'
    )
    cudnn_benchmark: bool = Field(
        default=False,
        description='cuDNN tries kernels out and takes the fastest; another process may take others, so that bits may '
        'differ after a resume (new key)',
    )
    max_skipped_steps: PositiveInt = Field(
        default=10,
        description='stop after so many skipped steps (loss or gradient not finite) in a row (new key)',
    )

    @cached_property
    def precision_reason(self) -> str | None:
        """Why ``precision: auto`` became what it is now; None: it was another one."""
        return None

    def losses(self) -> dict[str, ScheduledLoss]:
        """Every loss that was asked for, by its key in the options."""
        sections = {f'train.{key}': getattr(self, key) for key in Train.model_fields if key.endswith('_opt')}
        terms = {f'train.distill_opt.{number}': term for number, term in enumerate(self.distill_opt or [])}
        return {key: loss for key, loss in {**sections, **terms}.items() if isinstance(loss, ScheduledLoss)}
