"""The types of values: how the text of each is read, checked and shown.

A value of a config file arrives as the text in the file, and the `Reader` of its field alone decides what the text means. So
YAML's own guesses (`NO` is false, `010` is 8, `1_000` is 1000, `12:30` is 750) never reach a field, and a value from `${ENV}`
is read exactly like one that is written out. The command line reads its options with the same readers.

A value that comes from Python (a default, or the settings that a worker receives) already has its type and is only checked. A
value that a field cannot take raises `RefusedError`, whose text continues a sentence that begins with the value: `is …; write
…`.

`reader` what all readers share, and lists; `durations`; `numbers` (sizes, whole and decimal numbers, flags, choices); `network`
(databases, proxies, URLs, addresses, hosts); `places` (time zones, countries); `words` (names, paths, secrets, hours, opt-out
words).
"""

from shardd.config.values.durations import Seconds, SecondsOrNever, format_duration, parse_duration
from shardd.config.values.numbers import Bytes, Choice, Flag, Number, Whole
from shardd.config.values.reader import Listed, Reader, RefusedError, Text, closest

__all__ = [
    "Bytes",
    "Choice",
    "Flag",
    "Listed",
    "Number",
    "Reader",
    "RefusedError",
    "Seconds",
    "SecondsOrNever",
    "Text",
    "Whole",
    "closest",
    "format_duration",
    "parse_duration",
]
