import json

from asgiref.sync import async_to_sync
from channels.generic.websocket import WebsocketConsumer
from django.contrib.auth import get_user_model

from chat.models import Connection, Message
from chat.tokens import decrypt_id, encrypt_id


class ChatConsumer(WebsocketConsumer):
    def connect(self):
        user = self.scope["user"]
        self.connection_id = decrypt_id(self.scope["url_route"]["kwargs"]["connectionId"])
        if not user.is_authenticated or not Connection.of(user).filter(pk=self.connection_id).exists():
            self.close()
            return
        self.room_group_name = f"chat_{self.connection_id}"
        async_to_sync(self.channel_layer.group_add)(self.room_group_name, self.channel_name)
        self.accept()

    def disconnect(self, code):
        if hasattr(self, "room_group_name"):
            async_to_sync(self.channel_layer.group_discard)(self.room_group_name, self.channel_name)

    def receive(self, text_data):
        data = json.loads(text_data)
        action = data.get("type", "add")
        if action == "add":
            self.add(data)
        elif action == "edit":
            self.edit(data)
        elif action == "delete":
            self.delete(data)

    def add(self, data):
        sender = get_user_model().objects.get(username=data["user"])
        message = Message.objects.create(connection_id=self.connection_id, sender=sender, text=data["message"])
        self.tell("chat.message", data, message_id=encrypt_id(message.pk), message=message.text)

    def edit(self, data):
        message = self.own(data)
        message.text = data["message"]
        message.save(update_fields=["text"])
        self.tell("chat.message.edit", data, message_id=data["message_id"], message=message.text)

    def delete(self, data):
        self.own(data).delete()
        self.tell("chat.message.delete", data, message_id=data["message_id"])

    def own(self, data):
        pk = decrypt_id(data["message_id"])
        return Message.objects.get(pk=pk, connection_id=self.connection_id, sender__username=data["user"])

    def tell(self, kind, data, **keys):
        event = {"type": kind, "user": data["user"], **keys}
        async_to_sync(self.channel_layer.group_send)(self.room_group_name, event)

    def chat_message(self, event):
        self.show("add", event, message=event["message"])

    def chat_message_edit(self, event):
        self.show("edit", event, message=event["message"])

    def chat_message_delete(self, event):
        self.show("delete", event)

    def show(self, kind, event, **keys):
        self.send(json.dumps({"type": kind, "user": event["user"], "message_id": event["message_id"], **keys}))
