create table orders (id integer primary key, item text not null, count integer not null);

insert into orders select id, case when id % 3 = 0 then 'samovar' else 'teapot' end, 1 + id % 4 from generate_series(1, 42) id;

