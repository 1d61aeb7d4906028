"""Which folder names mean normal images: the dataset decides a label by a folder's name, so no name is guessed."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lad_reasoner.support.errors import DataError

__all__ = ["COMMON", "LOOKALIKE_LETTERS", "NORMAL_NAMES", "FolderNames", "means_normal"]


def _plain(name: str) -> str:
    """Return a name in lower case and compatibility form, without accents."""
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", name.casefold()).casefold())
    bare = "".join(c for c in decomposed if not "\u0300" <= c <= "\u036f")
    return unicodedata.normalize("NFC", bare).translate(_STROKES)


def _squeeze(name: str) -> str:
    """Return a name without separators. Other marks stay: "A+" is not "A-", and "!good" is not "good"."""
    return re.sub(r"[\s_.,'\u2019\u30fb()\u200b-\u200d\u00ad\ufeff]+|(?<=\w)[-\u2010-\u2015](?=\w)", "", _plain(name))


def _either(words: str) -> str:
    """Return a pattern of any of the words; an underscore in one stands for a space."""
    return "|".join(_plain(word).replace("_", " ?") for word in words.split())


#: Letters whose stroke is not an accent of Unicode.
_STROKES: Final = str.maketrans("łøđı", "lodi")

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
    good goods ok okay normal normals nominal pass passed passing fine intact undamaged flawless faultless perfect
    gut gute guter gutes guten gutteil gutteile fehlerfrei einwandfrei bon bonne bons bonnes conforme conformes
    conforming acceptable sain sano bueno buena buenos buenas correcto buono buona buoni buone bom boa goed goede bra
    godkand godkjent dobry dobre dobra хорошо хороший хорошие хорошая норма норм нормальный годен годный годные
    negative negatives neg clean reference references golden healthy regular standard valid accepted correct
"""

_DOUBTFUL_ALONE_WORDS: Final = """
    none nothing null nil blank clear okey free baseline ref refs template control sample samples original genuine
    ideal nice sound pristine spotless unblemished unbroken untouched unscratched undamaged unused new working
    functional usable functioning compliant qualified approved spec inspec grade a class in to within
    makellos tadellos mangelfrei unbeschaedigt unbeschadigt unauffallig unauffaellig ordentlich heil ganz korrekt
    richtig sauber impeccable parfait parfaite accepte acceptee aceptable aceptado aprobado sana limpio perfecto
    perfetto integro corretto regolare idoneo accettato perfeito perfeita aprovado aprovada aprovados aceito inorde
    orde onbeschadigd goedgekeurd heel god gode godt fin fint hel helt kunnossa virheeton ehja sprawny poprawny
    poprawne bezvadny spravny dobar ispravan ispravno rendben jo hibatlan megfelelo iyi hatasiz kusursuz saglam tamam
    uygun bun buna buni bune tot dat binh thuong baik bagus исправный исправные исправен целый целые целое добре добрий
    справний 好的 完好 正品 優良 优良 良い 無傷 健全 正樣本 正样本 正例 阴性 陰性 无损 無損 무결점 양호 우량품
"""

#: Alphabets that the lists above cover. In another one every name is doubtful.
_COVERED: Final = (
    "LATIN",
    "CYRILLIC",
    "CJK",
    "HIRAGANA",
    "KATAKANA",
    "HANGUL",
    "FULLWIDTH",
    "HALFWIDTH",
    "IDEOGRAPHIC",
)

#: Parts of a longer word that make it doubtful: "goodimages", "normalbild", "OK品".
_DOUBTFUL_PARTS: Final = """
    good normal nominal okay okpart okimage okimg okpic okphoto oksample okteil okbild okitem perfect intact flawless
    conform accept correct healthy einwandfrei fehlerlos хорош годн нормал 良品 正常 合格 良好 好品 ok品 정상 양품 합격
"""

_NEGATIONS_OF_DEFECTS: Final = """
    no not non without zero free_of ohne kein keine keinen nicht sans pas_de aucun aucune sin ningun ninguna senza
    nessun sem nenhum zonder geen niet utan inga ingen uden uten ei fara bez brak_wad без нет
"""

_DEFECTS: Final = """
    defect defects defective anomaly anomalies anomalous anomalie anomalien anomalia anomalias fault faults faulty
    error errors flaw flaws damage damages damaged fehler mangel schaden defekt defekte defekter defaut defauts
    defectueux
    erreur erreurs defecto defectos falla fallas fallo fallos errores difetto difetti defeito defeitos falha falhas
    defecte defecten gebrek gebreken fout fouten fel feil fejl vika vikoja wady wad bledow vady vad
    дефект дефекта дефектов брака
"""

#: What follows a defect's word to deny it: "defect-free", "fehlerlos", "foutloos", "felfri".
_FREE: Final = "free frei freie los lose less vrij loos fri fria нет"

#: Names that mean normal, without case, accents and separators, so that "OK", "Defect-Free" and "no_defect" are found:
#: English, German, French, Spanish, Italian and Portuguese, Dutch and Nordic, Polish and Czech, Russian, Chinese and
#: Japanese, Korean. docs/datasets.md lists the languages too.
NORMAL_NAMES: Final = frozenset(map(_squeeze, _WORDS.split()))

#: Words that make a name doubtful: it may mean normal images, or not.
_DOUBTFUL: Final = frozenset(map(_squeeze, _DOUBTFUL_WORDS.split()))

#: Words that are doubtful only in a name that has no other: "none", but not "none_of_both".
_DOUBTFUL_ALONE: Final = _DOUBTFUL | frozenset(map(_plain, _DOUBTFUL_ALONE_WORDS.split()))

_PART: Final = re.compile(
    r"(?<![a-z])(?:ab|a|un|in|im|ir|dis|no|non|not|nicht)(?:PARTS)|[不非未비불](?:PARTS)|(?P<good>PARTS)".replace(
        "PARTS", "|".join(map(_plain, _DOUBTFUL_PARTS.split()))
    )
)

#: A denied defect in a name whose words are separated by single spaces.
_DENIED_DEFECT: Final = re.compile(
    rf"\b(?:{_either(_NEGATIONS_OF_DEFECTS)}) ?(?:{_either(_DEFECTS)})\b"
    rf"|\b(?:{_either(_DEFECTS)})s? ?(?:{_either(_FREE)})\b"
    r"|[无無沒没]有? ?(?:缺陷|瑕疵|欠陥|異常|异常|不良|缺点|問題)|(?:欠陥|異常|不良|問題) ?(?:なし|無し|無)"
    r"|무 ?(?:결함|이상|불량)|(?:결함|이상|불량) ?없음"
)

#: A word of a defect, where a negation is somewhere else in the name.
_DEFECT: Final = frozenset(map(_plain, _DEFECTS.split()))

_NEGATIONS: Final = frozenset(
    {"not", "no", "non", "nicht", "kein", "keine", "pas", "niet", "ikke", "nie", "не", "不", "非"}
)

#: Names that are a number of a class, of which one is the normal one: "0", "000", "1", "class_1", "label2".
_CLASS_NUMBER: Final = re.compile(r"0+|0*1|(?:class|cls|label|category|klasse|type|id)[0-9]+")

#: Letters that look like Latin letters: Cyrillic, Greek, dotless i, script g.
LOOKALIKE_LETTERS: Final = str.maketrans(
    "\u0430\u0432\u0435\u043a\u043c\u043d\u043e\u0440\u0441\u0442\u0443\u0445\u0456\u0458\u0455\u0501"
    "\u03b1\u03b9\u03ba\u03bd\u03bf\u03c1\u03c4\u03c5\u03c7\u03b5\u03b7\u0131\u0261\u0581\u0585",
    "abekmhopctyxijsd" + "aikvoptuxen" + "iggo",
)

#: The letters, and digits that look like letters: "g00d", "norma1".
_LOOKALIKES: Final = {**LOOKALIKE_LETTERS, **str.maketrans("01", "ol")}


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
        normal = means_normal(folder.name)
        if normal is None:
            problem = f"the name {folder.name!r} may mean normal images or a defect"
            remedy = f"Pass --normal {folder.name!r} or --defect {folder.name!r}"
            raise DataError(problem, where=folder, remedy=remedy)
        return normal

    def unused(self, found: Iterable[str]) -> list[str]:
        """Return the declared names that no folder has."""
        present = _squeezed(found)
        return [name for name in (*self.normal, *self.defect) if _squeeze(name) not in present]


#: The documented names alone.
COMMON: Final = FolderNames()


def means_normal(name: str) -> bool | None:
    """Return whether a name means normal images; None if it may mean either."""
    squeezed, words = _squeeze(name), _words(name)
    if squeezed in NORMAL_NAMES:
        return True
    text = " ".join(words)
    if _is_unclear(name, squeezed, words):
        return None
    if _DENIED_DEFECT.search(text):
        return True if all(word in _DOUBTFUL for word in _DENIED_DEFECT.sub(" ", text).split()) else None
    good = [index for index, word in enumerate(words) if _may_be_good(word)]
    if all(index and words[index - 1] in _NEGATIONS for index in good):
        return None if _NEGATIONS & set(words) and _DEFECT & set(words) else False
    return None


def _is_unclear(name: str, squeezed: str, words: list[str]) -> bool:
    """Return whether a name looks like one for normal images, or cannot be read."""
    alike = squeezed.translate(_LOOKALIKES)
    return (
        _CLASS_NUMBER.fullmatch(squeezed) is not None
        or (alike != squeezed and (alike in NORMAL_NAMES or alike in _DOUBTFUL))
        or not re.search(r"\w", name)
        or not all(map(_is_covered, "".join(words)))
        or (bool(words) and _DOUBTFUL_ALONE.issuperset(words))
    )


def _is_covered(letter: str) -> bool:
    return letter.isascii() or unicodedata.name(letter, "").startswith(_COVERED)


def _may_be_good(word: str) -> bool:
    return word in _DOUBTFUL or any(match["good"] for match in _PART.finditer(word))


def _squeezed(names: Iterable[str]) -> set[str]:
    return {_squeeze(name) for name in names}


def _words(name: str) -> list[str]:
    """Return the words of a name, split at separators, digits and capitals inside it."""
    return re.findall(r"[^\W\d_]+", _plain(re.sub(r"([a-z])([A-Z])", r"\1 \2", name)))
