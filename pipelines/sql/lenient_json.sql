-- lenient_json(x): whether text that json_valid accepts holds what RFC 8259 forbids.
-- DuckDB 2.0 is more lenient than the RFC in two ways only: a comma before ] or }, and bare
-- NaN or Infinity in any case. Outside of strings neither can hide, so strings are emptied first.
create macro lenient_json(x) as
regexp_matches(
    regexp_replace(x, '"(?:[^"\\]|\\.)*"', '""', 'g'),
    ',[ \t\r\n]*[\]}]|[nN][aA]|[iI]'
)
