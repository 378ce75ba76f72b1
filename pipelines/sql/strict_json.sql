-- strict_json(x): whether text is one JSON value by RFC 8259; false for null.
-- A comma before a bracket, or NaN or Infinity, which json_valid lets pass, can only stand after a
-- comma, a colon or a bracket, or be the whole text: one search for each, and the first three start
-- with a literal, by which RE2 skips ahead. CASE, not AND: AND evaluates both sides on every row.
create macro strict_json(x) as
case
    when json_valid(x) is not true then false
    when
        regexp_matches(x, ',\s*(?:[\]}]|-?(?i:nan|inf(?:inity)?)\s*[,\]}])')
        or regexp_matches(x, ':\s*-?(?i:nan|inf(?:inity)?)\s*[,}]')
        or regexp_matches(x, '\[\s*-?(?i:nan|inf(?:inity)?)\s*[,\]]')
        or regexp_matches(x, '^\s*-?(?i:nan|inf(?:inity)?)')
    then not lenient_json(x)
    else true
end
