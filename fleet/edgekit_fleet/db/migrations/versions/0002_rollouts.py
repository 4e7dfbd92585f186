"""Rollouts, rings, members and their history, telemetry, judgements and the lease."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("until", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "steps",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("rollout", sa.String(length=64), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("step", sa.String(length=16), nullable=False),
        sa.Column("back", sa.Boolean(), nullable=False),
        sa.Column("late", sa.Boolean(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("reason", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_steps")),
    )
    op.create_index("ix_steps_member", "steps", ["rollout", "device"], unique=False)
    op.create_table(
        "device_events",
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("boot_id", sa.String(length=64), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("received", sa.Double(), nullable=False),
        sa.Column("deployment", sa.String(length=80), nullable=False),
        sa.Column("slot", sa.String(length=64), nullable=False),
        sa.Column("step", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(["device"], ["devices.id"], name=op.f("fk_device_events_device")),
        sa.PrimaryKeyConstraint("device", "boot_id", "seq", name=op.f("pk_device_events")),
    )
    op.create_index(op.f("ix_device_events_received"), "device_events", ["received"], unique=False)
    op.create_table(
        "received",
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("boot_id", sa.String(length=64), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("also", sa.JSON(), nullable=False),
        sa.Column("dropped", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["device"], ["devices.id"], name=op.f("fk_received_device")),
        sa.PrimaryKeyConstraint("device", "boot_id", name=op.f("pk_received")),
    )
    op.create_table(
        "rollouts",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("slot", sa.String(length=64), nullable=False),
        sa.Column("release", sa.String(length=257), nullable=False),
        sa.Column("package", sa.String(length=71), nullable=False),
        sa.Column("previous", sa.String(length=257), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("pause", sa.String(length=20), nullable=False),
        sa.Column("reason", sa.String(length=4096), nullable=False),
        sa.Column("plan", sa.JSON(), nullable=False),
        sa.Column("salt", sa.String(length=128), nullable=False),
        sa.Column("truth", sa.JSON(), nullable=True),
        sa.Column("table", sa.JSON(), nullable=False),
        sa.Column("reference", sa.JSON(), nullable=False),
        sa.Column("allow_unverified", sa.Boolean(), nullable=False),
        sa.Column("actor", sa.String(length=128), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("updated", sa.Double(), nullable=False),
        sa.Column("ended", sa.Double(), nullable=True),
        sa.Column("ring", sa.Integer(), nullable=False),
        sa.Column("scope", sa.String(length=8), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("published", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["slot"], ["slots.name"], name=op.f("fk_rollouts_slot")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rollouts")),
    )
    op.create_index(op.f("ix_rollouts_slot"), "rollouts", ["slot"], unique=False)
    op.create_index(op.f("ix_rollouts_state"), "rollouts", ["state"], unique=False)
    op.create_table(
        "telemetry",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("boot_id", sa.String(length=64), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("record", sa.String(length=8), nullable=False),
        sa.Column("slot", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("deployment", sa.String(length=80), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("received", sa.Double(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["device"], ["devices.id"], name=op.f("fk_telemetry_device")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_telemetry")),
        sa.UniqueConstraint("device", "boot_id", "seq", name=op.f("uq_telemetry_device")),
    )
    op.create_index("ix_telemetry_device_received", "telemetry", ["device", "slot", "received"], unique=False)
    op.create_index(op.f("ix_telemetry_received"), "telemetry", ["received"], unique=False)
    op.create_index("ix_telemetry_slot_id", "telemetry", ["slot", "id"], unique=False)
    op.create_table(
        "members",
        sa.Column("rollout", sa.String(length=64), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("ring", sa.Integer(), nullable=False),
        sa.Column("hardware", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("variant", sa.String(length=128), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("step", sa.String(length=16), nullable=False),
        sa.Column("since", sa.Double(), nullable=False),
        sa.Column("first", sa.Double(), nullable=False),
        sa.Column("notified", sa.Double(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("gen", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.JSON(), nullable=True),
        sa.Column("late_step", sa.String(length=16), nullable=False),
        sa.Column("retry_at", sa.Double(), nullable=False),
        sa.Column("before", sa.JSON(), nullable=True),
        sa.Column("back_step", sa.String(length=16), nullable=False),
        sa.Column("back_since", sa.Double(), nullable=False),
        sa.Column("back_notified", sa.Double(), nullable=False),
        sa.Column("back_gen", sa.BigInteger(), nullable=False),
        sa.Column("back_reason", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(["device"], ["devices.id"], name=op.f("fk_members_device")),
        sa.ForeignKeyConstraint(["rollout"], ["rollouts.id"], name=op.f("fk_members_rollout")),
        sa.PrimaryKeyConstraint("rollout", "device", name=op.f("pk_members")),
    )
    op.create_index("ix_members_device", "members", ["device"], unique=False)
    op.create_table(
        "rings",
        sa.Column("rollout", sa.String(length=64), nullable=False),
        sa.Column("idx", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("opened", sa.Double(), nullable=False),
        sa.Column("soaking_since", sa.Double(), nullable=False),
        sa.Column("closed", sa.Double(), nullable=False),
        sa.Column("approved", sa.Boolean(), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=4096), nullable=False),
        sa.Column("looked", sa.Double(), nullable=False),
        sa.Column("looked_at", sa.BigInteger(), nullable=False),
        sa.Column("excluded", sa.JSON(), nullable=False),
        sa.Column("judgement", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(["rollout"], ["rollouts.id"], name=op.f("fk_rings_rollout")),
        sa.PrimaryKeyConstraint("rollout", "idx", name=op.f("pk_rings")),
    )
    op.create_table(
        "judgements",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("rollout", sa.String(length=64), nullable=False),
        sa.Column("ring", sa.Integer(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("cut", sa.BigInteger(), nullable=False),
        sa.Column("subjects", sa.JSON(), nullable=False),
        sa.Column("judgement", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["rollout", "ring"], ["rings.rollout", "rings.idx"], name=op.f("fk_judgements_rollout")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_judgements")),
    )
    op.create_index("ix_judgements_ring", "judgements", ["rollout", "ring"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_judgements_ring", table_name="judgements")
    op.drop_table("judgements")
    op.drop_table("rings")
    op.drop_index("ix_members_device", table_name="members")
    op.drop_table("members")
    op.drop_index("ix_telemetry_slot_id", table_name="telemetry")
    op.drop_index(op.f("ix_telemetry_received"), table_name="telemetry")
    op.drop_index("ix_telemetry_device_received", table_name="telemetry")
    op.drop_table("telemetry")
    op.drop_index(op.f("ix_rollouts_state"), table_name="rollouts")
    op.drop_index(op.f("ix_rollouts_slot"), table_name="rollouts")
    op.drop_table("rollouts")
    op.drop_table("received")
    op.drop_index(op.f("ix_device_events_received"), table_name="device_events")
    op.drop_table("device_events")
    op.drop_index("ix_steps_member", table_name="steps")
    op.drop_table("steps")
    op.drop_table("leases")
