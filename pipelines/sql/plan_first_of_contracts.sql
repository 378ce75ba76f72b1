-- plan_first_of_contracts: each kind of columns that batches have, and the first batch that has them.
-- returns  columns varchar, path varchar, by path
with
    firsts as (
        select contract, min(ordinal) as ordinal
        from batches
        group by contract
    )
select contracts.columns, batches.path
from firsts
    join contracts on contracts.contract = firsts.contract
    join batches on batches.ordinal = firsts.ordinal
order by batches.path
