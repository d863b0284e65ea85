"""The sections of an options file. Every key is BasicSR's unless its description says otherwise."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from basicsr_clsd.config.components import Component, Metric
from basicsr_clsd.config.foreign import without_unused
from basicsr_clsd.config.protocols import DEFAULT, PROTOCOLS
from basicsr_clsd.config.section import RECORDED, Count, FileName, Section, Seed, Text
from basicsr_clsd.config.training import Teacher, Train
from basicsr_clsd.runtime.hardware import computes_bf16

# Their files run as they would in BasicSR, whose losses see images in [0, 1].
BASICSR_MODELS = ('SRModel', 'SwinIRModel')


class Distribution(Section):
    """How several processes find each other and wait."""

    timeout: float = Field(
        default=30, gt=0, description='minutes that a process waits for the others before it fails (new key)'
    )


class IoBackend(Section):
    """How images are stored."""

    type: Literal['disk', 'lmdb'] = 'disk'


class Dataset(Section):
    """One training, validation or test set. Which it is tells its name: ``train``, ``val...`` or ``test...``."""

    name: FileName | None = Field(default=None, description='shown in logs and tables; the section name if left out')
    type: str = Field(
        default='PairedDataset', description="`PairedDataset`; BasicSR's `PairedImageDataset` means the same"
    )
    dataroot_gt: str = Field(description='folder or `.lmdb` of HR images')
    dataroot_lq: str | None = Field(
        default=None,
        description='folder or `.lmdb` of LR images; left out: made from HR by MATLAB bicubic, once, and kept',
    )
    lq_cache: str | None = Field(
        default=None,
        description='where LR images made from HR are kept; default `<dataroot_gt>_LRbicx<scale>` (new key)',
    )
    meta_info_file: str | None = Field(
        default=None, description='text file whose first column names the HR images to use'
    )
    names: list[Text] | None = Field(
        default=None, description='names, without extension, of the HR images to use; default all (new key)'
    )
    filename_tmpl: str = Field(
        default='{}', description="name of the LR image from that of HR, e.g. `'{}x2'` for DIV2K"
    )
    io_backend: IoBackend = Field(default_factory=IoBackend, description='`type: disk` or `type: lmdb`')
    gt_size: PositiveInt | None = Field(default=None, description='side of the HR training patch in pixels')
    use_hflip: bool = Field(default=True, description='horizontal flips, p = 0.5')
    use_rot: bool = Field(default=True, description='vertical flips and transposes, p = 0.5 each')
    num_worker_per_gpu: Count = Field(default=2, description='loader processes')
    batch_size_per_gpu: PositiveInt = Field(default=16, description='images of a batch on each device')
    dataset_enlarge_ratio: PositiveInt = Field(default=1, description='an epoch visits each image this often')
    cache_images: bool = Field(default=False, description='decode once and keep in memory; for small sets (new key)')
    color: Literal['y'] | None = Field(default=None, description='`y`: train and test on luma alone')
    bit_depth: int = Field(
        default=8,
        ge=8,
        le=16,
        description='bits that white has in images of 16 bits per value, e.g. 12 for a camera of 12; above 8 they keep '
        'their precision in training and validation, at 8 they are rounded to 8 (new key)',
    )
    mean: list[float] | None = Field(default=None, description='subtracted from both images, per channel')
    std: list[float] | None = Field(default=None, description='both images are divided by it, per channel')
    pin_memory: bool = Field(default=True, description='page-locked batches on a GPU')


class Paths(Section):
    """Weights to start from and folders to write to."""

    pretrain_network_g: str | None = Field(default=None, description='weights of `network_g` to start from, or to test')
    param_key_g: str | None = Field(
        default='params', description='key of the weights in that file; `null`: it has none'
    )
    strict_load_g: bool = Field(default=True, description='every key must match')
    pretrain_network_teacher: str | None = Field(
        default=None, description="weights of `network_teacher`, under BasicSR's names or EDSR-PyTorch's (new key)"
    )
    param_key_teacher: str = Field(
        default='params', description='key of the weights in that file; a file without keys is taken as it is (new key)'
    )
    resume_state: str | None = Field(default=None, description='training state to go on from')
    experiments_root: str | None = Field(
        default=None, description='folder of all runs; default `experiments/` of the checkout'
    )
    results_root: str | None = Field(
        default=None, description='folder of all tests; default `results/` of the checkout'
    )
    tb_root: str | None = Field(
        default=None, description='folder of all curves; default `tb_logger/` of the checkout (new key)'
    )


class TestedNetwork(Section):
    """One of several networks to test; its key in ``networks`` is its row in the tables."""

    checkpoint: str = Field(
        description="weights of this project, BasicSR's or EDSR-PyTorch's EDSR, or an `.onnx` file (`pip install "
        "'basicsr-clsd[deploy]'`)"
    )
    param_key: str = Field(default='params', description='key of the weights in that file; ignored where it has none')
    network_g: Component | None = Field(default=None, description="its arch; default the file's `network_g`")
    self_ensemble: bool | None = Field(default=None, description='default `val.self_ensemble`')


class Best(Section):
    """Which validation result decides on ``net_g_best.pth``."""

    dataset: str | None = Field(default=None, description='name of the validation set; default the first')
    metric: str | None = Field(default=None, description='name of the metric; default the first')


class Validation(Section):
    """Validation during training, and testing."""

    val_freq: PositiveInt | None = Field(
        default=None, description='validate every so many iterations; always at the end'
    )
    save_img: bool = Field(default=False, description='write the upscaled images')
    protocol: Literal['y_crop_scale', 'rgb_crop_scale', 'edsr_div2k_rgb'] | None = Field(
        default=None,
        description='PSNR and SSIM on Y of BT.601 or on RGB, `scale` (`edsr_div2k_rgb`: `scale` + 6) pixels of border '
        'cut, beside those of `metrics`; default `y_crop_scale` unless there are `metrics` (new key)',
    )
    metrics: dict[str, Metric] = Field(
        default_factory=dict,
        description="by name: BasicSR's, or `calculate_pyiqa` with `metric: lpips`, `dists`, ... (`pip install "
        "'basicsr-clsd[perceptual]'`)",
    )
    tile: PositiveInt | None = Field(
        default=None,
        description='test: upscale in tiles of so many LR pixels; default the whole image, and smaller and smaller '
        'tiles when memory runs out (new key)',
    )
    tile_overlap: Count | None = Field(
        default=None,
        description="test: LR pixels that a tile sees around it; default as far as the network's output depends on "
        'them, which gives the whole image (new key)',
    )
    self_ensemble: bool = Field(
        default=False, description='test: mean of the outputs for the eight turned and mirrored images (new key)'
    )
    latency: bool = Field(
        default=True, description='test: measure time and memory of an output of 1280x720 pixels (new key)'
    )
    heads: bool = Field(default=False, description='validate the heads too, as `<metric>/head<j>` (new key)')
    best: Best = Field(default_factory=Best, description='which result is the best checkpoint (new key)')
    comparison: bool = Field(
        default=False, description='test: write a picture of bicubic, student and HR crops for each set (new key)'
    )
    suffix: str | None = Field(default=None, description="added to the names of written images; default the run's name")


class Wandb(Section):
    """Weights & Biases, which gets what TensorBoard gets."""

    project: str | None = Field(default=None, description='name of the project; left out: not used')
    resume_id: str | None = Field(default=None, description='ID of the run to go on with; default that of this run')


class Logger(Section):
    """What is written down, and how often."""

    print_freq: PositiveInt = Field(default=100, description='log the losses every so many iterations')
    save_checkpoint_freq: PositiveInt = Field(
        default=5000, description='save state and weights every so many iterations'
    )
    grad_norm_freq: Count = Field(
        default=0,
        description="every so many iterations, log the norm of each term's gradient in the trunk; 0: never (new key)",
    )
    keep_states: PositiveInt = Field(default=2, description='how many training states are kept (new key)')
    use_tb_logger: bool = Field(default=True, description='write TensorBoard curves')
    wandb: Wandb = Field(default_factory=Wandb, description='copy the curves to Weights & Biases (`pip install wandb`)')


def _gpus(value: object) -> object:
    if value != 'auto' and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise ValueError("must be 'auto', 0 or a number of GPUs")
    return value


class Options(Section):
    """A whole options file."""

    name: FileName = Field(description='name of the run and of its folders')
    model_type: str = Field(
        default='SupervisedModel',
        description='`CLSDModel`, `KDModel`, `CSDModel`, `PrivilegedModel` or `SupervisedModel`, which `SRModel` and '
        '`SwinIRModel` of BasicSR mean',
    )
    scale: int = Field(ge=1, le=16, description='super-resolution factor s')
    num_gpu: Annotated[Literal['auto'] | Count, BeforeValidator(_gpus)] = Field(
        default='auto', description='`auto`: one if there is one; 0: CPU; more: start with a launcher'
    )
    manual_seed: Seed | None = Field(default=None, description='seed of everything; left out: drawn, and written down')
    network_g: Component = Field(description='the student: registered arch and its arguments')
    network_teacher: Component | None = Field(
        default=None, description='the teacher of `KDModel` and `CSDModel`: registered arch and its arguments (new key)'
    )
    datasets: dict[str, Dataset] = Field(default_factory=dict, description='`train`, `val...`, `test...`')
    networks: dict[FileName, TestedNetwork] = Field(
        default_factory=dict,
        description='test: networks by name; left out: `network_g` with the weights of `path` (new key)',
    )
    path: Paths = Field(default_factory=Paths)
    train: Train | None = None
    val: Validation = Field(default_factory=Validation)
    logger: Logger = Field(default_factory=Logger)
    dist_params: Distribution = Field(default_factory=Distribution)
    find_unused_parameters: bool = Field(
        default=False, description='several processes: some parameters get no gradient in some iterations'
    )

    @classmethod
    def recorded(cls, values: Mapping[str, Any]) -> 'Options':
        """Options that a run recorded, with today's names and the defaults of keys that are newer; ``None`` is not set.

        Raises:
            ValidationError: They are not of this project, or of a version too old.
        """
        return cls.model_validate({key: value for key, value in values.items() if value is not None}, context=RECORDED)

    @model_validator(mode='before')
    @classmethod
    def _leave_out_unused(cls, values: Any) -> Any:
        return without_unused(values)

    @model_validator(mode='after')
    def _fill_in(self) -> 'Options':
        """Settle what depends on another section, so that the resolved file says what was used."""
        for key, dataset in self.datasets.items():
            if dataset.name is None:
                dataset.name = key
        if self.train is not None and self.train.pixel_range is None:
            self.train.pixel_range = 1.0 if self.model_type in BASICSR_MODELS else 255.0
        if self.train is not None and self.train.precision == 'auto':
            fast, reason = computes_bf16(self.num_gpu)
            self.train.precision = 'bf16' if fast else 'fp32'
            vars(self.train)['precision_reason'] = reason
            if 'channels_last' not in self.train.model_fields_set:
                self.train.channels_last = fast
        if self.train is not None and self.network_teacher is not None:
            for key in Teacher.model_fields:
                if getattr(self.train.teacher, key) is None:
                    setattr(self.train.teacher, key, getattr(self.train, key))
        if not self.val.metrics and self.val.protocol is None:
            self.val.protocol = DEFAULT
        if self.val.protocol is not None:
            named = PROTOCOLS[self.val.protocol].metrics(self.scale)
            self.val.metrics = {**{key: Metric.model_validate(named[key]) for key in named}, **self.val.metrics}
        return self

    def sets(self, *phases: str) -> Iterator[tuple[str, Dataset]]:
        """The data sets whose section name starts with one of ``phases``, with that name."""
        for key, dataset in self.datasets.items():
            if key.split('_')[0] in phases:
                yield key, dataset
