-- tags_from_pairs(l): an object from a list of {name, value}; a pair without name is left out.
create macro tags_from_pairs(l) as
coalesce(
    '{' || array_to_string(
        list_transform(
            list_filter(l, lambda tag: tag.name is not null),
            lambda tag: to_json(tag.name::varchar) || ':'
                || coalesce(to_json(tag.value::varchar)::varchar, 'null')
        ),
        ','
    ) || '}',
    '{}'
)
