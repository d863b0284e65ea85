"""The protocols by name: which channels of an image are compared with HR, and how much of its border is cut."""

from typing import Any, NamedTuple

CUSTOM = 'custom'
EDSR_BORDER = 6  # pixels that EDSR's code cuts beside the scale on DIV2K


class Protocol(NamedTuple):
    """What PSNR and SSIM are computed on: 8-bit images, clipped and rounded, of three equal channels if gray.

    Args:
        luma: Y of BT.601 (16..235, not rounded) instead of RGB.
        border: Pixels that are cut from each side beside the scale.
    """

    luma: bool
    border: int

    def metrics(self, scale: int) -> dict[str, dict[str, Any]]:
        """The sections of ``val.metrics`` at a scale."""
        how = {'crop_border': scale + self.border, 'test_y_channel': self.luma}
        return {name: {'type': f'calculate_{name}', **how} for name in ('psnr', 'ssim')}


DEFAULT = 'y_crop_scale'
PROTOCOLS = {
    DEFAULT: Protocol(luma=True, border=0),  # the field's, and the paper's
    'rgb_crop_scale': Protocol(luma=False, border=0),
    'edsr_div2k_rgb': Protocol(luma=False, border=EDSR_BORDER),  # Lim et al., CVPRW 2017, on DIV2K
}


def name_of(metrics: dict[str, dict[str, Any]], scale: int) -> str:
    """The protocol whose metrics are among these sections, with equal arguments; ``custom`` if there is none."""
    whole = {key: {'crop_border': 0, 'test_y_channel': False, **section} for key, section in metrics.items()}
    for name, protocol in PROTOCOLS.items():
        if all(whole.get(key) == section for key, section in protocol.metrics(scale).items()):
            return name
    return CUSTOM
