-- Run by the embedded database's superuser; stands alone because a transaction cannot hold it.
CREATE DATABASE shardd OWNER shardd ENCODING 'UTF8' TEMPLATE template0
