with gated as materialized (
    -- The offsets keep the planner from running a subquery twice, and the limits keep it from hashing a whole table.
    select g.* from (
        select n.id,
               (select true from optouts o
                 where o.phone_hash = n.phone_hash and o.sender = any(array[n.sender, '*']) limit 1) as opted_out,
               case when n.at_most is not null then
                   (select extract(epoch from s.created_at - now())::float8 + n.period from sessions s
                     where s.phone = n.phone and s.group_id = n.group_id and s.token is not null
                       and s.id > n.since and s.id <> n.id and s.created_at > now() - make_interval(secs => n.period)
                     order by s.id desc offset n.at_most - 1 limit 1) end as after,
               case when n.nth > n.at_most then true
                    when n.nth > 1 then
                   (select true from sessions s
                     where s.phone = n.phone and s.group_id = n.group_id and s.token is not null
                       and s.id > n.since and s.id <> n.id and s.created_at > now() - make_interval(secs => n.period)
                     order by s.id desc offset n.at_most - n.nth limit 1) end as crowded
          from (select unnest($1::uuid[]) as id, unnest($2::bigint[]) as group_id, unnest($3::text[]) as phone,
                       unnest($4::text[]) as sender, unnest($5::bytea[]) as phone_hash,
                       unnest($6::int[]) as at_most, unnest($7::int[]) as nth, unnest($8::float8[]) as period,
                       unnest($9::uuid[]) as since) n
        offset 0) g
     where g.opted_out or g.after is not null or g.crowded
), written as (
    insert into sessions (
        id, group_id, status, session_type, session_params,
        phone, requested_by, message_id, correlation_id, request_sha256,
        owns_message_id, acknowledged, session_key, key_held, token,
        invitation_text, text_state, attempts, error_code, error,
        expires_at, due_at, deadline_at, valid_until,
        unsure_from, lease_until, ended_at, reply_to, look_since, published_at, traceparent)
    select r.*
      -- Not in the from clause: there each array would first be copied into a tuple store.
      from (select
        unnest($10::uuid[]) as id, unnest($11::bigint[]), unnest($12::text[]), unnest($13::int[]), unnest($14::text[])::jsonb,
        unnest($15::text[]), unnest($16::text[]), unnest($17::text[]), unnest($18::text[]), unnest($19::bytea[]),
        unnest($20::bool[]), unnest($21::bool[]), unnest($22::text[]), unnest($23::bool[]), unnest($24::text[]),
        unnest($25::text[]), unnest($26::text[]), unnest($27::int[]), unnest($28::text[]), unnest($29::text[])::jsonb,
        now() + make_interval(secs => unnest($30::float8[])), now() + make_interval(secs => unnest($31::float8[])),
        now() + make_interval(secs => unnest($32::float8[])), now() + make_interval(secs => unnest($33::float8[])),
        now() + make_interval(secs => unnest($34::float8[])), now() + make_interval(secs => unnest($35::float8[])),
        now() + make_interval(secs => unnest($36::float8[])), unnest($37::text[]), unnest($38::timestamptz[]),
        unnest($39::timestamptz[]), unnest($40::text[])) r
     where r.id <> all (array(select gated.id from gated))
    on conflict do nothing
    returning id, expires_at, ticket
)
select id as "id!", expires_at, ticket, null::bool as opted_out, null::float8 as after from written
union all
select id, null, null, coalesce(opted_out, false), after from gated
