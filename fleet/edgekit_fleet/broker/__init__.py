"""The MQTT broker: found, configured, started, watched and told about new devices.

Mosquitto as a child process where it is found, else amqtt as a child process on loopback (development,
about 500 devices), or somebody else's broker. All three read the same password file and ACL, which
`credentials` and `acl` write; `files` renders them, `child` runs them, `choice` picks one.
"""
