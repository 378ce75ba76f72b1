-- json_payload(x): the text to splice for a payload of kind json; null makes the event a reject.
create macro json_payload(x) as
case
    when x is null then 'null'
    when strict_json(x) then single_line(x)
end
