"""Payload texts that writers of logs really leave, and worse: each named, and whether it is JSON.

`is_strict` is RFC 8259, but for lone surrogate escapes, which DuckDB cannot hold: rejects.
"""

from typing import NamedTuple


class Hostile(NamedTuple):
    """One payload text."""

    name: str
    text: str
    is_strict: bool


STRICT = {
    "float-with-zero": "1.0",
    "beyond-double": "1e400",
    "beyond-double-negative": "[-1e400,1E-4000]",
    "25-digit-integer": "1234567890123456789012345",
    "long-fraction": "0.1000000000000000055511151231257827021181583404541015625",
    "minus-zero": "-0",
    "upper-case-exponent": '{"a":1E5,"b":1e+05}',
    "escaped-letter": r'"caf\u00e9"',
    "escaped-solidus": r'{"url":"https:\/\/example.com"}',
    "escaped-pair": r'"\ud83d\ude00"',
    "escaped-pair-upper-case": r'"\uD83D\uDE00"',
    "escaped-nul": r'{"a\u0000b":"\u0000"}',
    "escaped-backslash-before-u": r'"\\ud800"',
    "raw-unicode": '"é 😀 \u2028 \u2029 \x7f \x85 \ufeff \uffff"',
    "duplicate-keys": '{"a":1,"a":2,"a":1}',
    "empty-key": '{"":{"":""}}',
    "key-order": '{"b":1,"a":2,"10":3,"9":4}',
    "white-space-kept": '{ "a"\t:  [ ] ,"b" : { }  }',
    "line-breaks": '{\n  "a": [\r\n    1,\r    2\n  ]\n}\n',
    "escaped-line-breaks": r'{"a":"x\ny\r\n"}',
    "line-breaks-around": '\n\r{"a":1}\n',
    "deep-1000": "[" * 1_000 + "]" * 1_000,
    "deep-100000": "[" * 100_000 + "]" * 100_000,
    "deep-objects": '{"a":' * 1_000 + "1" + "}" * 1_000,
    "comma-in-string-before-bracket": '{"a":",]","b":", }","c":"[1,]"}',
    "quote-and-comma-in-string": r'{"a":"\",]","b":"\\","c":[",}"]}',
    "nan-in-strings": '{"a":"NaN","NaN":"x","b":["NaN, Infinity","-inf"],"c":": NaN,"}',
    "nan-after-comma-in-string": '{"a":"1,nan]"}',
    "comment-in-string": '{"a":"// x /* y */ # z"}',
    "literals": "[null,true,false]",
    "null": "null",
    "string": '"plain"',
    "record-like": '{"input":{},"output":"}\\n{","tags":{}}',
    "20-mb": '{"a":"' + "x,]é" * 4_000_000 + '"}',
}

NOT_STRICT = {
    "trailing-comma-list": "[1,]",
    "trailing-comma-object": '{"a":1,}',
    "trailing-comma-space": "[1, ]",
    "trailing-comma-tab": '{"a":1,\t}',
    "trailing-comma-line-break": '{"a":[1,\r\n]}',
    "trailing-comma-after-string": '{"a":",]",}',
    "trailing-comma-nested": '{"a":[{"b":[[],]}]}',
    "comma-alone": "[,]",
    "comma-first": "[,1]",
    "comma-twice": "[1,,2]",
    "nan": '{"a":NaN}',
    "nan-lower-case": "[nan]",
    "nan-mixed-case": "[1,nAn]",
    "nan-spaced": '{"a" : NaN }',
    "nan-after-nan-string": '{"NaN":NaN}',
    "infinity": '{"a":Infinity}',
    "infinity-lower-case": "[1, infinity , 2]",
    "inf": "[Inf]",
    "minus-inf": '{"a":-inf}',
    "minus-infinity-nested": "[[1],[-Infinity]]",
    "plus-infinity": "[+Infinity]",
    "comment-block": '{"a":1 /* one */}',
    "comment-line": '{"a":1} // one',
    "comment-first": '{/**/"a":1}',
    "truncated-object": '{"a":1',
    "truncated-key": '{"a',
    "truncated-string": '"abc',
    "truncated-escape": r'{"a":"\u00',
    "truncated-literal": "[tru",
    "truncated-list": "[1,2",
    "raw-line-break-in-string": '{"a":"x\ny"}',
    "raw-tab-in-string": '{"a":"x\ty"}',
    "raw-control-in-string": '{"a":"x\x01y"}',
    "form-feed": "[1,\f2]",
    "vertical-tab": "[1\v]",
    "no-break-space": "[1,\u00a02]",
    "trailing-comma-form-feed": "[1,\f]",
    "single-quotes": "{'a':'b'}",
    "bare-key": "{a:1}",
    "python-literals": '{"a":None,"b":True}',
    "leading-zero": "[01]",
    "leading-plus": "[+1]",
    "leading-point": "[.5]",
    "trailing-point": "[1.]",
    "hexadecimal": "[0x10]",
    "bad-escape": r'"\x41"',
    "two-values": '{"a":1}{"b":2}',
    "two-lines": '{"a":1}\n{"b":2}',
    "text-behind": "[1]x",
    "bracket-behind": '{"a":1}}',
    "mixed-brackets": "[1}",
    "nul-in-string": '{"a":"x\0y"}',
    "nul-behind": '{"a":1}\0',
    "lone-high-surrogate": r'{"a":"\ud800"}',
    "lone-low-surrogate": r'["\udc00"]',
    "surrogates-swapped": r'"\udc00\ud800"',
    "high-surrogate-and-letter": r'"\ud800\u0041"',
    "byte-order-mark": '\ufeff{"a":1}',
    "byte-order-mark-behind": '{"a":1}\ufeff',
    "deep-unclosed": "[" * 100_000,
}

# No JSON, but no text that starts like some either: an error page, a stream, an empty body.
PLAIN = {
    "empty": "",
    "white-space": " \t\r\n ",
    "nul": "\0",
    "bare-word": "error",
    "bare-nan": "NaN",
    "bare-nan-spaced": " nan ",
    "bare-minus-inf": "-inf",
    "bare-infinity": "Infinity",
    "html": '<html>\n<body>"502" \\ Bad Gateway</body>\r\n</html>\n',
    "stream": 'data: {"id":"a"}\n\ndata: {"id":"b"}\n\ndata: [DONE]\n\n',
    "literal-and-more": "null and void",
    "number-and-more": "502 Bad Gateway",
    "comment": "/* x */ {}",
    "form-feed-first": '\f{"a":1}',
    "control-characters": "".join(map(chr, range(1, 32))),
    "separators": "a\u2028b\u2029c\x85d",
}

CASES = [
    *(Hostile(name, text, is_strict=True) for name, text in STRICT.items()),
    *(Hostile(name, text, is_strict=False) for name, text in {**NOT_STRICT, **PLAIN}.items()),
]
