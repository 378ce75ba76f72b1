-- tags_from_text(t): a flat object of strings and nulls from tags stored as JSON text; null when
-- the text is no JSON object or list of strings. Keys keep their order and spelling, and so do strings;
-- numbers and booleans become strings of the same characters, nested values strings of JSON as
-- recorded (nested beyond seven levels: as DuckDB writes JSON, the first of two equal keys).
-- The '0' appended makes every match end at a token's end: without it the search would go on
-- inside the strings after the last number. Its quoted form is cut off again.
create macro tags_from_text(t) as
case
    when t is null or trim(t, ' ' || chr(9) || chr(10) || chr(13)) = '' then '{}'
    when strict_json(t) is not true then null
    when regexp_full_match(
        t, '\s*\{\s*(?:"(?:[^"\\]|\\.)*"\s*:\s*(?:"(?:[^"\\]|\\.)*"|null)\s*,?\s*)*\}\s*'
    )
    then single_line(t)
    when regexp_full_match(
        t,
        '\s*\{\s*(?:"(?:[^"\\]|\\.)*"\s*:\s*(?:"(?:[^"\\]|\\.)*"|null|true|false|-?[0-9][-+.0-9eE]*)\s*,?\s*)*\}\s*'
    )
    then single_line(
        left(
            regexp_replace(
                t || '0',
                '((?:"(?:[^"\\]|\\.)*"|[{}:,\s]|null)*)(true|false|-?[0-9][-+.0-9eE]*)',
                '\1"\2"',
                'g'
            ),
            -3
        )
    )
    when regexp_full_match(t, '\s*null\s*') then '{}'
    when regexp_full_match(t, '\s*\[\s*(?:"(?:[^"\\]|\\.)*"\s*,?\s*)*\]\s*')
    then tags_from_list(from_json(t, '["VARCHAR"]'))
    when regexp_matches(t, '^\s*\[') then null
    -- Some value is nested. Brackets of valid JSON pair, so a search that goes seven levels deep
    -- finds each key with its value as recorded.
    when regexp_full_match(
        t,
        '\s*\{(?:\s*' || list_reduce(
            ['"(?:[^"\\]|\\.)*"\s*:\s*(?:"(?:[^"\\]|\\.)*"|[\[{]@[\]}]|[^"\[\]{},:\s]+)']
                || repeat(['(?:[^"\[\]{}]|"(?:[^"\\]|\\.)*"|[\[{]@[\]}])*'], 6)
                || ['(?:[^"\[\]{}]|"(?:[^"\\]|\\.)*")*'],
            lambda outer_part, part: replace(outer_part, '@', part)
        ) || '\s*,?)*\s*\}\s*'
    )
    then '{' || array_to_string(
        list_transform(
            regexp_extract_all(
                t,
                list_reduce(
                    ['"(?:[^"\\]|\\.)*"\s*:\s*(?:"(?:[^"\\]|\\.)*"|[\[{]@[\]}]|[^"\[\]{},:\s]+)']
                        || repeat(['(?:[^"\[\]{}]|"(?:[^"\\]|\\.)*"|[\[{]@[\]}])*'], 6)
                        || ['(?:[^"\[\]{}]|"(?:[^"\\]|\\.)*")*'],
                    lambda outer_part, part: replace(outer_part, '@', part)
                )
            ),
            lambda tag: case
                when regexp_matches(tag, '(?:"|:\s*null)$') then single_line(tag)
                else regexp_extract(tag, '^"(?:[^"\\]|\\.)*"') || ':' || to_json(
                    single_line(regexp_extract(tag, '^"(?:[^"\\]|\\.)*"\s*:\s*((?s:.*))$', 1))
                )::varchar
            end
        ),
        ','
    ) || '}'
    when regexp_matches(t, '^\s*\{')
    then '{' || array_to_string(
        list_transform(
            json_keys(t),
            lambda k: to_json(k) || ':' || coalesce(
                to_json(json_extract_string(t, '/' || replace(replace(k, '~', '~0'), '/', '~1'))),
                'null'
            )
        ),
        ','
    ) || '}'
end
