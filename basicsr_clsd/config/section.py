"""What the sections of an options file are made of: keys that are known, and kinds of values.

Sections can be read like BasicSR's option dicts (``opt['train']['total_iter']``, ``opt.get(...)``, ``in``), so that
what BasicSR builds from them works, and like typed objects (``options.train.total_iter``) everywhere in this project.
"""

import logging
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]  # what torch takes
Text = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int | float) else value)]


def _file_name(value: str) -> str:
    # A run called '' or '..' would be renamed together with all others.
    if not value.strip() or value in ('.', '..') or '/' in value or '\0' in value or len(value.encode()) > LONGEST_NAME:
        raise ValueError(f"must be fit to name a folder: without '/', at most {LONGEST_NAME} bytes")
    return value


LONGEST_NAME = 200  # of the 255 bytes of a file's name; some are made by adding to it
FileName = Annotated[Text, AfterValidator(_file_name)]

RECORDED = object()  # context of validation: options of an earlier run, whose names are nobody's to change


class Section(BaseModel):
    """A section whose keys are known: any other key is an error."""

    model_config = ConfigDict(extra='forbid')
    renamed: ClassVar[Mapping[str, str]] = {}  # keys of earlier versions, and what they are called now

    @model_validator(mode='before')
    @classmethod
    def _accept_former_names(cls, values: Any, info: ValidationInfo) -> Any:
        former = [key for key in cls.renamed if isinstance(values, dict) and key in values]
        for key in former:
            if cls.renamed[key] in values:
                raise ValueError(f'{key} is the former name of {cls.renamed[key]}; give one of them')
            if info.context is not RECORDED:
                logging.getLogger('basicsr').warning(f'options: {key} is now called {cls.renamed[key]}')
        return (
            {cls.renamed[key] if key in former else key: value for key, value in values.items()} if former else values
        )

    def __getitem__(self, key: str) -> Any:
        """Read a key as from a dict; ``KeyError`` when it is not there or not set."""
        value = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def get(self, key: str, default: Any = None) -> Any:
        """Read a key as from a dict; ``default`` when it is not there or not set."""
        value = getattr(self, key) if key in self.keys() else None
        return default if value is None else value

    def keys(self) -> list[str]:
        """Names of all keys, those that this section lets through included."""
        return [*type(self).model_fields, *(self.model_extra or {})]

    def __contains__(self, key: str) -> bool:
        """Whether a key is there and set."""
        return self.get(key) is not None

    def as_dict(self) -> dict[str, Any]:
        """The section as plain values, without the keys that are not set."""
        return self.model_dump(mode='python', exclude_none=True)
