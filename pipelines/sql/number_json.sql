-- number_json(x): a number as JSON text, a whole one without a point; null is what JSON cannot hold.
create macro number_json(x) as
case
    when x = trunc(x) and abs(x) < 1e15 then x::bigint::varchar
    when isfinite(x::double) then to_json(x)::varchar
    else 'null'
end
