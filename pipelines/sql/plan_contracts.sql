-- plan_contracts: what columns batches have, numbered: their text is longer than all else of a batch.
-- params   $indexed varchar[] (Parquet), $time_key varchar
-- creates  contracts(contract int, columns)
create temp table contracts as
with
    found as (
        select distinct columns from read_parquet($indexed) where time_key = $time_key
    )
select (row_number() over (order by columns) - 1)::integer as contract, columns
from found
