-- strict_json(x): whether text is one JSON value by RFC 8259; null for null.
-- The searches in the middle find every text that may be lenient, and few others.
create temp macro strict_json(x) as
json_valid(x)
and case
    when
        regexp_matches(x, ',[ \t\r\n]*[\]}]')
        or regexp_matches(x, '(?i)(?:nan|inf|infinity)[ \t\r\n]*(?:[,\]}]|$)')
    then not lenient_json(x)
    else true
end
