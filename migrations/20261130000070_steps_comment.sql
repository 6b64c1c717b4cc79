-- What the table `steps` is read for has grown.

comment on table steps is 'What happened to invites that left the plain path, in order: tries that were not accepted, looks, redeliveries, receipts and the like (`session-invite trace`). Deleted with their session. A worker reads which invites the sweep has ended.';
