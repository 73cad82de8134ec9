"""HL7 v2: results and alerts as messages for a hospital's information system."""
