DROP TABLE cloud_setting;
DROP TABLE lease;
