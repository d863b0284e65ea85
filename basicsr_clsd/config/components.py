"""What is built by name from a registry: networks, losses, metrics, with the arguments of their constructors."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field, PositiveInt, model_validator

from basicsr_clsd.config.schedule import Schedule
from basicsr_clsd.config.section import Section, Text


class Component(Section):
    """Something built by name from a registry: ``type`` and the arguments of its constructor."""

    model_config = ConfigDict(extra='allow')
    not_passed: ClassVar[tuple[str, ...]] = ()  # keys that are this project's and no arguments
    given: ClassVar[tuple[str, ...]] = ()  # arguments that the constructor gets from elsewhere
    type: str = Field(description='registered name')

    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {key: value for key, value in self.as_dict().items() if key not in ('type', *self.not_passed)}


class ScheduledLoss(Component):
    """A loss of the training: a registered class with its arguments."""

    not_passed = ('schedule',)
    schedule: Schedule | None = Field(
        default=None, description='factor on the loss over the iterations; default 1 (new key)'
    )


class Loss(ScheduledLoss):
    """A loss with one weight."""

    loss_weight: float = Field(default=1.0, description='factor on the loss')


class SelfDistillLoss(Loss):
    """L_SD: the loss between each head and the student."""

    not_passed = ('schedule', 'detach_teacher')
    detach_teacher: bool = Field(
        default=True, description='the student (the teacher of the heads) gets no gradient from L_SD'
    )


class ContrastiveTerm(Loss):
    """L_CS: the contrastive ratio."""

    @model_validator(mode='before')
    @classmethod
    def _without_what_is_gone(cls, values: Any) -> Any:
        # Options that earlier versions wrote out have it; it never did anything but refuse.
        if isinstance(values, dict) and values.get('across_accumulation') is False:
            return {key: value for key, value in values.items() if key != 'across_accumulation'}
        return values


def _taps(value: object) -> object:
    entries = value if isinstance(value, list) else [value]
    if not isinstance(value, list | dict) or not all(isinstance(each, str | int | float | dict) for each in entries):
        raise ValueError('must be a list of paths or evenly: a number of taps')
    return [each if isinstance(each, dict) else str(each) for each in value] if isinstance(value, list) else value


# Written out when the network is there, by `archs.trunk.resolve`.
Taps = Annotated[list[Any] | dict[str, Any], BeforeValidator(_taps)]


class HintTerm(Loss):
    """L_H: between the features that the upsamplers of heads and student are given."""

    not_passed = ('schedule', 'target')
    given = ('head_channels', 'student_channels')  # found out when the network has been built
    target: Text = Field(
        default='upsample:input', description="the student's feature, of the LR image's size, as in the taps of heads"
    )


class FeatureRatioTerm(Loss):
    """L_C of CSD: the ratio of distances between features."""

    not_passed = ('schedule', 'extractor', 'vgg_weights', 'input', 'network', 'path', 'taps')
    extractor: Literal['vgg19', 'network', 'pixels'] = Field(
        default='vgg19', description='whose features: of VGG19, of a network of `network`, or the pixels themselves'
    )
    vgg_weights: str | None = Field(
        default=None, description="vgg19: path of torchvision's `vgg19-dcbb9e9d.pth`, or `random`, for tests"
    )
    input: Literal['raw', 'imagenet'] = Field(
        default='raw', description="vgg19: RGB in [0, 255], or normalised by ImageNet's mean and deviation"
    )
    network: Component | None = Field(default=None, description='network: registered arch and its arguments')
    path: str | None = Field(default=None, description='network: its weights')
    taps: Taps = Field(default_factory=list, description='network: features of it, as `student_taps` of a distillation')


class DistillationTerm(Loss):
    """One term between the student and the teacher."""

    not_passed = ('schedule', 'name', 'images', 'crops', 'consistency', 'student_taps', 'teacher_taps')
    given = ('student_channels', 'teacher_channels')  # found out when the networks have been built
    name: Text | None = Field(default=None, description="the term's name in the log; default the loss's own")
    images: Literal['pairs', 'zoom_in', 'zoom_out'] = Field(
        default='pairs',
        description='what both networks are given: LR images; parts of HR images of their size (`zoom_in`); or LR '
        'images made smaller, whose ground truth LR images are (`zoom_out`)',
    )
    crops: PositiveInt = Field(default=1, description='zoom_in: parts of each HR image, at most s²')
    consistency: float = Field(
        default=0,
        ge=0,
        le=1,
        description="zoom_in: probability that the student's image is inverted in colour, flipped from left to right, "
        'from top to bottom, and transposed, each; its output is turned back',
    )
    student_taps: Taps = Field(
        default_factory=list,
        description='features of the student: paths of modules, whose output is meant (`body.9`), or input '
        '(`upsample:input`); ranges of them (`body.3-11/4`); `evenly: T`, boundaries between the blocks of the trunk',
    )
    teacher_taps: Taps = Field(default_factory=list, description='features of the teacher, one for each of those')


class Metric(Component):
    """A metric of BasicSR's registry."""

    not_passed = ('better',)
    better: Literal['higher', 'lower'] = Field(default='higher', description='which way is better')
