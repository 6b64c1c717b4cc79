-- What a group's visitors know it by. Only changes the catalogue.
alter table groups add column name text check (char_length(name) between 1 and 80);
comment on column groups.name is 'What the group''s visitors know it by, on the page of their link; null for its number.';
comment on column groups.join_url is 'The template of where the visitor''s page leads, with {key}, {token} and {group}; null for nowhere.';
