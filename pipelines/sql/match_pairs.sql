-- match_pairs: of each input the newest chosen answer with the newest rejected one that differs.
-- creates  matched(input, ordinal, start, size, partner, partner_start, partner_size), from examples
create or replace temp table matched as
with
    answers as (
        select * from examples
        qualify row_number() over (partition by input, side, conversation order by age desc) = 1
    ),
    newest as (
        -- Two of each side are enough: one answer equals one other at most.
        select * from answers
        qualify row_number() over (partition by input, side order by age desc) <= 2
    )
select
    c.input,
    c.ordinal,
    c.start,
    c.size,
    r.ordinal as partner,
    r.start as partner_start,
    r.size as partner_size
from newest as c join newest as r on r.input = c.input and r.conversation <> c.conversation
where c.side = 'chosen' and r.side = 'rejected'
qualify row_number() over (partition by c.input order by c.age desc, r.age desc) = 1
order by c.ordinal
