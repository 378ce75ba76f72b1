"""Text for generated calls: endless sentences out of words, and pools of them to slice."""

import bisect
import json
import random
from collections.abc import Iterator

POOL_BYTES = 12 << 20

_ENGLISH = (
    "the of and to in a is that for it as was with be by on not he his but at are this have from "
    "or had an they which one you were all her she there would their we him been has when who "
    "will no more if out so up said what its about than into them can only other time new some "
    "could these two may first then do any like my now over such our man me even most made after "
    "also did many off before must well back through years much where your way down should "
    "because long each just state people those too mr how little good world make very year still "
    "see own work men day get here old life both between being under three never know same last "
    "another while us might great go come since against right came take used himself few house "
    "American use place during high without again home around small however found Mrs part school "
    "thought went say general once upon war every does got united left number course until always "
    "away something fact water though less public put thing almost hand enough far took head yet "
    "better display modern order invoice customer delivery refund account address request model "
    "answer question table column value function return error please provide summary following "
    "example response system user data information details result list steps issue ticket team"
)
_FRENCH = (
    "le la les été déjà où être à très près élève naïve façon leçon garçon forêt hôtel côté vœu "
    "œuvre modèle réponse requête données problème système commande livraison facture problème "
    "après même année idée café société numéro général intérêt qualité sécurité propriété"
)
_JAPANESE = (
    "東京 大阪 注文 配送 請求書 お客様 返金 住所 質問 回答 モデル 関数 エラー 要約 データ 情報 "
    "結果 手順 問題 担当 確認 ありがとうございます してください について 以下の 例えば "
    "日本語 です。 ます。"
)


class TextPool:
    """Text that is already escaped for a JSON string, sliced at sentence ends."""

    def __init__(self, sentences: Iterator[str], size_bytes: int) -> None:
        pieces: list[str] = []
        offsets = [0]
        for sentence in sentences:
            if offsets[-1] >= size_bytes:
                break
            pieces.append(sentence)
            offsets.append(offsets[-1] + len(sentence))
        self._text = "".join(pieces)
        self._offsets = offsets
        self._bytes_per_char = len(self._text.encode()) / len(self._text)

    def cut(self, rng: random.Random, size_bytes: int) -> str:
        """Return whole sentences of about `size_bytes`, at least one."""
        chars = min(int(size_bytes / self._bytes_per_char), self._offsets[-1] // 2)
        start = bisect.bisect_left(self._offsets, rng.random() * (self._offsets[-1] - chars))
        start = min(start, len(self._offsets) - 2)
        end = bisect.bisect_left(self._offsets, self._offsets[start] + chars, lo=start + 1)
        return self._text[self._offsets[start] : self._offsets[min(end, len(self._offsets) - 1)]]


def make_pools(rng: random.Random) -> tuple[list[TextPool], TextPool]:
    """Return a pool of prose for each app, most of them English, and one of tools' results."""
    words = _ENGLISH.split() + _made_up_words(rng, 5_000)
    english = TextPool(_sentences(rng, words), POOL_BYTES)
    accented = TextPool(_sentences(rng, words[:400] + _FRENCH.split() * 4), POOL_BYTES // 8)
    japanese = TextPool(_sentences(rng, _JAPANESE.split() + words[:40]), POOL_BYTES // 8)
    ascii_only = TextPool(
        map(_escape_non_ascii, _sentences(rng, words[:300] + _FRENCH.split() * 3)),
        POOL_BYTES // 8,
    )
    results = TextPool(_tool_results(rng, words), POOL_BYTES // 2)
    return [english] * 9 + [accented, japanese, ascii_only], results


def _made_up_words(rng: random.Random, count: int) -> list[str]:
    onsets = (*"bcdfghlmnprstvw", "st", "tr", "pl", "ch", "sh", "br")
    vowels = (*"aeiou", "ea", "ou", "io")
    codas = ("", "n", "r", "s", "t", "l", "nd", "ng", "tion", "ment", "ly", "ed")
    return [
        "".join(rng.choice(onsets) + rng.choice(vowels) for _ in range(rng.choice((1, 2, 2, 3))))
        + rng.choice(codas)
        for _ in range(count)
    ]


def _sentences(rng: random.Random, words: list[str]) -> Iterator[str]:
    """Endless escaped sentences; phrases repeat, as they do in real text."""
    weights = [1 / (rank + 8) for rank in range(len(words))]
    drawn = rng.choices(words, weights, k=120_000)
    phrases = [" ".join(drawn[at : at + 3]) for at in range(0, len(drawn), 3)]
    ranks = [1 / (rank + 60) for rank in range(len(phrases))]
    ends = (". ", ". ", ". ", "? ", ": ", ".\\n", ".\\n\\n", ".\\n- ", ".\\n\\n```\\n\\t")
    while True:
        picked = rng.choices(phrases, ranks, k=4_096)
        at = 0
        while at < len(picked) - 6:
            length = rng.randint(2, 6)
            sentence = " ".join(picked[at : at + length])
            at += length
            style = rng.random()
            if style < 0.08:
                sentence = f'he said \\"{sentence}\\"'
            elif style < 0.25:
                sentence = sentence.replace(" ", ", ", 1)
            elif style < 0.3:
                sentence = f"{rng.randint(1, 99_999)} {sentence} ({rng.random():.4f})"
            yield sentence[:1].upper() + sentence[1:] + rng.choice(ends)


def _tool_results(rng: random.Random, words: list[str]) -> Iterator[str]:
    """Endless escaped JSON objects, as tools return them inside a string."""
    while True:
        result = {
            "id": rng.randrange(10**9),
            "title": " ".join(rng.choices(words[:600], k=5)),
            "price": round(rng.random() * 500, 2),
            "tags": rng.choices(words[:200], k=3),
            "updated": f"2023-12-{rng.randint(1, 28):02}T{rng.randrange(24):02}:00:00Z",
            "active": rng.random() < 0.5,
            "parent": None,
        }
        yield json.dumps(json.dumps(result))[1:-1] + "\\n"


def _escape_non_ascii(text: str) -> str:
    return "".join(char if char.isascii() else f"\\u{ord(char):04x}" for char in text)
