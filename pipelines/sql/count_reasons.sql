-- count_reasons: how many examples are left out, by reason.
-- returns  reason varchar, count bigint, by reason; from selected
select reason, count(*) as count
from selected
where reason is not null
group by reason
order by reason
