"""Measurements on devices."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "benches",
        sa.Column("cid", sa.String(length=40), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("hardware", sa.String(length=64), nullable=False),
        sa.Column("release", sa.String(length=257), nullable=False),
        sa.Column("package", sa.String(length=71), nullable=False),
        sa.Column("variant", sa.String(length=128), nullable=False),
        sa.Column("entry", sa.JSON(), nullable=False),
        sa.Column("runs", sa.Integer(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("threads", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("actor", sa.String(length=128), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("issued", sa.Double(), nullable=True),
        sa.Column("expires", sa.Double(), nullable=False),
        sa.Column("ended", sa.Double(), nullable=True),
        sa.Column("reason", sa.JSON(), nullable=True),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(["device"], ["devices.id"], name=op.f("fk_benches_device")),
        sa.PrimaryKeyConstraint("cid", name=op.f("pk_benches")),
    )
    op.create_index(op.f("ix_benches_created"), "benches", ["created"], unique=False)
    op.create_index(op.f("ix_benches_release"), "benches", ["release"], unique=False)
    op.create_index(op.f("ix_benches_state"), "benches", ["state"], unique=False)
    op.create_index("ix_benches_device_state", "benches", ["device", "state"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_benches_device_state", table_name="benches")
    op.drop_index(op.f("ix_benches_state"), table_name="benches")
    op.drop_index(op.f("ix_benches_release"), table_name="benches")
    op.drop_index(op.f("ix_benches_created"), table_name="benches")
    op.drop_table("benches")
