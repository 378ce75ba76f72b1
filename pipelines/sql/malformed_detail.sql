-- malformed_detail(x): why text is no strict JSON, in words that hold nothing of it.
create macro malformed_detail(x) as
case
    when x is null then 'bytes that are not UTF-8'
    when trim(x, ' ' || chr(9) || chr(10) || chr(13)) = '' then 'empty text'
    when starts_with(x, chr(65279)) then 'starts with a byte order mark'
    when json_valid(x) and lenient_json(x) then 'trailing comma, NaN or Infinity'
    when regexp_matches(x, '\\u[dD][89a-fA-F]') then 'lone surrogate escape, malformed or truncated JSON'
    else 'malformed or truncated JSON'
end
