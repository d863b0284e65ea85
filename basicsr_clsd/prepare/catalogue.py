"""Catalogues: which archives a published data set is made of, and how to know that they are the right ones."""

from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, ValidationError

from basicsr_clsd.config.load import read_yaml
from basicsr_clsd.config.section import Section
from basicsr_clsd.errors import UserError
from basicsr_clsd.prepare.download import RemoteFile

FOLDER = Path(__file__).parent / 'catalogues'

Checksum = Annotated[str, Field(pattern='^(sha256:[0-9a-f]{64}|md5:[0-9a-f]{32})$')]


class Catalogue(Section):
    """What every catalogue has."""

    url: str = Field(description='folder on a server that holds the archives')

    def remote(self, name: str, checksum: str, size: int | None) -> RemoteFile:
        """An archive on that server."""
        return RemoteFile(f'{self.url.rstrip("/")}/{name}', checksum, size)


AnyCatalogue = TypeVar('AnyCatalogue', bound=Catalogue)


def read(kind: type[AnyCatalogue], path: Path, mirror: str | None = None) -> AnyCatalogue:
    """Read a catalogue.

    Args:
        kind: What is in it.
        path: The YAML file.
        mirror: A URL to use in place of the catalogue's.

    Raises:
        UserError: The file cannot be read, or has a key that is wrong.
    """
    try:
        catalogue = kind.model_validate(read_yaml(path))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        keys = '.'.join(str(key) for key in problem['loc'])
        raise UserError(f'{path}: {keys}: {problem["msg"][0].lower()}{problem["msg"][1:]}') from error
    return catalogue.model_copy(update={'url': mirror}) if mirror else catalogue
