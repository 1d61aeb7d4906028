"""Which folder names mean normal images: the dataset decides a label by a folder's name, so no name is guessed."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lad_reasoner.support.errors import DataError

__all__ = ["COMMON", "NORMAL_NAMES", "FolderNames", "means_normal"]

_WORDS: Final = """
    good goods ok okay normal normals nominal pass passed fine intact flawless undamaged defectfree faultless
    nodefect nodefects nondefective nondefect noanomaly nonanomalous anomalyfree faultfree nofault perfect
    gut io inordnung fehlerfrei einwandfrei gutteil gutteile
    bon bonne bons conforme conformes sain sansdefaut normale normaux
    bueno buena buenos correcto sano sindefecto sindefectos
    buono buona buoni senzadifetti bom boa normais semdefeito
    goed bra godkand godkjent hyva normaal
    dobry dobre dobra wporzadku bezwad bezvad vporadku
    хорошо хороший норма нормальный годен годный бездефектов
    良品 正常 合格 良好 好 良 正常品 良品画像 無欠陥 无缺陷 無缺陷 無瑕疵 无瑕疵
    정상 양품 합격
"""

_DOUBTFUL_WORDS: Final = """
    good ok okay normal normals nominal pass passed intact flawless perfect gut fehlerfrei einwandfrei bon conforme
    bueno correcto buono bom goed dobry хороший норма годен 良品 正常 合格 良好 정상 양품
    0 00 negative negatives neg clean reference references golden healthy regular standard valid accepted correct
"""

#: Names that mean normal, without case, accents and separators, so that "OK", "Defect-Free" and "no_defect" are found:
#: English, German, French, Spanish, Italian and Portuguese, Dutch and Nordic, Polish and Czech, Russian, Chinese and
#: Japanese, Korean. docs/datasets.md lists the languages too.
NORMAL_NAMES: Final = frozenset(_WORDS.split())

#: Words that make a name doubtful: it may mean normal images, or not.
_DOUBTFUL: Final = frozenset(_DOUBTFUL_WORDS.split())

#: With one of these, a name is a defect's: "not_ok", "no good".
_NEGATIONS: Final = frozenset({"not", "no", "non", "nicht", "kein", "keine", "pas", "niet", "ikke", "не", "不", "非"})


@dataclass(frozen=True, slots=True)
class FolderNames:
    """How folder names are read.

    Attributes:
        normal: Names that the user declares normal (``--normal``).
        defect: Names that the user declares defects (``--defect``).
    """

    normal: Sequence[str] = ()
    defect: Sequence[str] = ()

    def is_normal(self, folder: Path) -> bool:
        """Return whether the images of a folder are normal.

        Raises:
            DataError: The name may mean either.

        Example:
            >>> from pathlib import Path
            >>> from lad_datasets.sources.folder_names import FolderNames
            >>> [FolderNames().is_normal(Path(name)) for name in ("Good", "no_defect", "正常", "scratch")]
            [True, True, True, False]
        """
        name = _squeeze(folder.name)
        if name in _squeezed(self.normal):
            return True
        if name in _squeezed(self.defect):
            return False
        if name in NORMAL_NAMES:
            return True
        words = _words(folder.name)
        if words & _DOUBTFUL and not words & _NEGATIONS:
            raise DataError(
                f"the name {folder.name!r} may mean normal images or a defect",
                where=folder,
                remedy=f"Pass --normal {folder.name!r} or --defect {folder.name!r}",
            )
        return False

    def unused(self, found: Iterable[str]) -> list[str]:
        """Return the declared names that no folder has."""
        present = _squeezed(found)
        return [name for name in (*self.normal, *self.defect) if _squeeze(name) not in present]


#: The documented names alone.
COMMON: Final = FolderNames()


def means_normal(name: str) -> bool | None:
    """Return whether a name means normal images; None if it may mean either."""
    return _squeeze(name) in NORMAL_NAMES


def _squeezed(names: Iterable[str]) -> set[str]:
    return {_squeeze(name) for name in names}


def _plain(name: str) -> str:
    """Return a name in lower case and compatibility form, without accents."""
    decomposed = unicodedata.normalize("NFKD", name.casefold())
    return unicodedata.normalize("NFC", "".join(c for c in decomposed if not "\u0300" <= c <= "\u036f"))


def _squeeze(name: str) -> str:
    return re.sub(r"[\W_]+", "", _plain(name))


def _words(name: str) -> set[str]:
    """Return the words of a name, split at separators, digits and capitals inside it."""
    split = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    return set(re.findall(r"[^\W\d_]+", _plain(split))) | ({_squeeze(name)} if _squeeze(name).isdigit() else set())
