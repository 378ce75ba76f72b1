-- tags_from_text(t): a flat object of strings and nulls from tags stored as JSON text; null when
-- the text is no JSON object or list. Keys keep their order and spelling, and so do strings;
-- numbers and booleans become strings of the same characters, nested values strings of JSON.
-- The '0' appended makes every match end at a token's end: without it the search would go on
-- inside the strings after the last number. Its quoted form is cut off again.
create temp macro tags_from_text(t) as
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
    when json_type(t) = 'NULL' then '{}'
    when json_type(t) = 'ARRAY' then tags_from_list(from_json(t, '["VARCHAR"]'))
    when json_type(t) = 'OBJECT'
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
