-- count_repairs: how many of the examples that stay were repaired, by what was.
-- returns  repair varchar, count bigint, by repair; from selected
select repair, count(*) as count
from (select unnest(repairs) as repair from selected where reason is null)
group by repair
order by repair
