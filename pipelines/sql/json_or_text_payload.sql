-- json_or_text_payload(x): JSON is spliced; text that starts like JSON but is not makes the event
-- a reject (null); any other text (an HTML error page, a recorded stream) becomes a JSON string.
create macro json_or_text_payload(x) as
case
    when x is null then 'null'
    when strict_json(x) then single_line(x)
    when left(ltrim(x, ' ' || chr(9) || chr(10) || chr(13) || chr(65279)), 1) in ('{', '[', '"') then null
    else to_json(x)::varchar
end
