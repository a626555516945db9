DROP TABLE organization_membership{{cascade}};
DROP TABLE organization{{cascade}};
