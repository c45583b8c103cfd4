import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Census",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("path", models.CharField(max_length=1000, verbose_name="directory")),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("COUNTING", "Counting"),
                            ("PUBLISHED", "Published"),
                            ("FAILED", "Failed"),
                        ],
                        default="COUNTING",
                        max_length=10,
                    ),
                ),
                (
                    "taskset_id",
                    models.CharField(blank=True, max_length=36, verbose_name="task set"),
                ),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("finished_at", models.DateTimeField(blank=True, null=True)),
                ("report", models.JSONField(blank=True, null=True)),
            ],
            options={
                "verbose_name_plural": "censuses",
                "ordering": ("-pk",),
            },
        ),
    ]
