-- tags_from_list(l): an object from a list of `key:value` strings; a string without colon is "true".
create macro tags_from_list(l) as
coalesce(
    '{' || array_to_string(
        list_transform(
            list_filter(l, lambda tag: tag is not null),
            lambda tag: case
                when contains(tag, ':')
                then to_json(split_part(tag, ':', 1)) || ':' || to_json(tag[instr(tag, ':') + 1:])
                else to_json(tag) || ':"true"'
            end
        ),
        ','
    ) || '}',
    '{}'
)
