-- floor_div: a / b rounded down, also below zero; b is positive.
create macro floor_div(a, b) as (a - ((a % b) + b) % b) // b
