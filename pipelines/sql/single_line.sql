-- single_line(x): JSON text without line breaks, which valid JSON has only between tokens.
-- contains() first: replace() on every payload costs, a search costs nothing next to the scan.
create macro single_line(x) as
case
    when contains(x, chr(10)) or contains(x, chr(13))
    then replace(replace(x, chr(10), ''), chr(13), '')
    else x
end
