"""A believable marketplace from a seed: the shop that ryml is tried, rehearsed and measured on.

Every row is a function of (seed, users, first date, day), so a database extended day by day equals one made at once,
and ten million users can be written by any number of processes. `shop_plan` says how large the shop is on which day,
`category_tree` what it trades in, `catalog_model`, `user_model` and `event_model` what is in it and what happens,
`sqlite_shop` and `parquet_shop` write that down.

Who loses all recommendations, and when
---------------------------------------
One user in a hundred is a *collector* of one small collection (ten items of "Collectibles"). Collectors look at the
same four items of their collection again and again and at nothing else; nobody else ever looks at a collection. So
whatever relates items by who looked at them can recommend to a collector only the six other items of that collection.
Every collection is sold out, as a whole, on every third day (collection c on the days whose number since 1970-01-01,
plus c, is a multiple of three): on that day its collectors have nothing left to be recommended, the day before and the
day after they have. There are at least three collections, so that on each day some are sold out: in any three nights
in a row a third of the collectors have recommendations on the first night and lose them on the second, another third
on the third. Collectors have an address and are subscribed, so losing everything has to reach the mail provider.
"""
