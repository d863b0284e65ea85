"""BasicSR's EDSR for spandrel, by which chaiNNer and ComfyUI load models.

``import basicsr_clsd.integrations.spandrel`` registers it in one's own process. From then on
``spandrel.ModelLoader().load_from_file('net_g_latest.pth')`` opens a student as it opens what spandrel knows itself.
"""

from collections.abc import Mapping
from typing import Any

from basicsr.archs.edsr_arch import EDSR

from basicsr_clsd.conversion.source import require
from basicsr_clsd.networks.edsr_arguments import edsr_arguments

require('devices', 'spandrel')

from spandrel import MAIN_REGISTRY, Architecture, ArchSupport, ImageModelDescriptor  # noqa: E402  (an extra)
from spandrel.util import KeyCondition  # noqa: E402

KEYS = ('conv_first.weight', 'body.0.conv1.weight', 'conv_after_body.weight', 'upsample.0.weight', 'conv_last.weight')


class EDSRArchitecture(Architecture[EDSR]):
    """EDSR under BasicSR's names, its arguments read off the weights."""

    def __init__(self) -> None:
        super().__init__(id='EDSR', detect=KeyCondition.has_all(*KEYS))

    def load(self, state_dict: Mapping[str, Any]) -> ImageModelDescriptor[EDSR]:
        """Build the network of a state dict.

        Raises:
            ValueError: The weights are not those of an EDSR.
        """
        arguments = edsr_arguments(state_dict)
        if arguments is None:
            raise ValueError('not the weights of an EDSR')
        network, channels = EDSR(**arguments), arguments['num_in_ch']
        return ImageModelDescriptor(
            network,
            dict(state_dict),
            architecture=self,
            purpose='SR',
            tags=[f'{arguments["num_feat"]}nf', f'{arguments["num_block"]}nb'],
            supports_half=False,  # features of images scaled to 255 can leave the range of fp16
            supports_bfloat16=True,
            scale=arguments['upscale'],
            input_channels=channels,
            output_channels=channels,
        )


MAIN_REGISTRY.add(ArchSupport.from_architecture(EDSRArchitecture()))
