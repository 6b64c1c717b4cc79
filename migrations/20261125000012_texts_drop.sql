-- What sessions_texts stands for now. In a file of its own, as in 0006.

drop index sessions_phone;
